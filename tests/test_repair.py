"""A damaged run directory: what can be read is saved, and nothing is deleted."""

import sqlite3
from pathlib import Path

import pytest

from freeal.errors import RunError
from freeal.ledger import FILE, Entry, Ledger, key_of, question_of
from freeal.llm import Message, Reply, Request
from freeal.repair import mend_ledger, set_aside_rounds
from freeal.store import SUMS, damaged_files

PAGE = 4096


def entry(i):
    request = Request((Message("user", f"text {i} " + "x" * 300),), ("yes", "no"), uid=f"r{i}")
    return Entry.of(key_of({"model": "tiny"}, question_of(request)), "round 0", request)


ENTRIES = [entry(i) for i in range(400)]


@pytest.fixture
def run(tmp_path):
    with Ledger(tmp_path / FILE) as ledger:
        ledger.keep([(each, Reply("yes", (-0.1, -2.0), 9, 1)) for each in ENTRIES], 4.0)
        ledger.remember("llm.ways", {"logprobs": 20})
    return tmp_path


def found(run):
    with Ledger(run / FILE, read_only=True) as ledger:
        return sum(ledger.find(each.key, "round 0") is not None for each in ENTRIES)


def scribble(path, page):
    raw = bytearray(path.read_bytes())
    raw[page * PAGE : (page + 1) * PAGE] = b"\x07" * PAGE
    path.write_bytes(raw)
    return bytes(raw)


def pages_of(path, table):
    with sqlite3.connect(path) as connection:
        try:
            rows = connection.execute("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'", (table,))
            return [row[0] - 1 for row in rows]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat")


def test_a_whole_ledger_is_left_alone(run):
    before = (run / FILE).read_bytes()
    assert mend_ledger(run) is None
    assert (run / FILE).read_bytes() == before


def test_all_rows_but_those_of_the_damaged_page_are_saved(run):
    page = pages_of(run / FILE, "requests")[10]
    damaged = scribble(run / FILE, page)
    saved = mend_ledger(run)
    assert 0 < saved.lost < 40
    assert saved.rows == len(ENTRIES) + 1 - saved.lost
    assert found(run) == len(ENTRIES) - saved.lost
    assert saved.kept.read_bytes() == damaged
    with Ledger(run / FILE) as ledger:
        assert ledger.recall("llm.ways") == {"logprobs": 20}
    assert mend_ledger(run) is None


def test_a_file_of_something_else_is_told_and_stays(run):
    (run / FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(RunError, match="nothing of it can be read"):
        mend_ledger(run)
    assert (run / FILE).read_bytes() == b"not a database" * 1000


def test_a_newer_ledger_is_not_mended(run):
    with sqlite3.connect(run / FILE) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(RunError, match="newer freeal"):
        mend_ledger(run)


def test_a_damaged_round_and_those_after_it_are_set_aside(tmp_path):
    for number in range(3):
        folder = tmp_path / "rounds" / f"0{number}"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text("{}", encoding="utf-8")
        (folder / SUMS).write_text(
            '{"report.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}', encoding="utf-8"
        )
    assert set_aside_rounds(tmp_path) == []
    (tmp_path / "rounds/01/report.json").write_text("{]", encoding="utf-8")
    assert damaged_files(tmp_path / "rounds/01") == ["report.json"]
    assert set_aside_rounds(tmp_path) == [str(tmp_path / "rounds/01/report.json")]
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["00", "01.damaged", "02.damaged"]


def test_a_repair_that_is_cut_short_leaves_the_damaged_round_to_the_next(tmp_path, monkeypatch):
    for number in range(3):
        folder = tmp_path / "rounds" / f"0{number}"
        folder.mkdir(parents=True)
        (folder / SUMS).write_text('{"report.json": "0"}' if number == 1 else "{}", encoding="utf-8")
    renamed, rename = [], Path.rename

    def once(path, target):
        if renamed:
            raise KeyboardInterrupt
        renamed.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(KeyboardInterrupt):
        set_aside_rounds(tmp_path)
    monkeypatch.undo()
    assert renamed == ["02"]
    assert set_aside_rounds(tmp_path) == [str(tmp_path / "rounds/01/report.json")]
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["00", "01.damaged", "02.damaged"]


@pytest.mark.parametrize("table", ["facts", "asked_rows"])
def test_the_requests_are_saved_whatever_becomes_of_the_smaller_tables(run, table):
    with Ledger(run / FILE) as ledger:
        ledger.note_rows("round 0", [(each.values["uid"], each.key) for each in ENTRIES])
    with sqlite3.connect(run / FILE) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    scribble(run / FILE, root - 1)
    saved = mend_ledger(run)
    assert saved.gone == (table,)
    assert found(run) == len(ENTRIES)


def test_an_empty_ledger_is_no_ledger_in_order(run):
    (run / FILE).write_bytes(b"")
    with pytest.raises(RunError, match="nothing of it can be read"):
        mend_ledger(run)


def test_a_second_repair_keeps_what_the_first_kept(run):
    page = pages_of(run / FILE, "requests")[10]
    first = scribble(run / FILE, page)
    kept = mend_ledger(run).kept
    scribble(run / FILE, pages_of(run / FILE, "requests")[5])
    again = mend_ledger(run).kept
    assert kept != again
    assert kept.read_bytes() == first
    assert sorted(run.glob("ledger*.sqlite*")) == sorted([run / FILE, kept, again])
