"""A round is on disk whole or not at all, and comes back as it was."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet

from freeal.errors import RunError
from freeal.select.reasons import reasons
from freeal.store import SUMMARY, RunStore, environment, is_finished, write_whole
from freeal.student.uniform import UniformStudent
from freeal.tasks.classification import Classification
from freeal.types import Annotations, Demonstration, Example, LoopState, Measured, Pool, argmax

LABELS = ("negative", "a: b, 'c' \"d\" 文")
NASTY = '=1+1, "q"\r\nline\u2028next\x85end\ttab 文 \''
TEXTS = (NASTY, "+plus", "-minus", "@at", "plain", "a = b")
POOL = Pool(tuple(Example(f"r{i}" if i else "=r0", text) for i, text in enumerate(TEXTS)))


def store(folder, labels=LABELS, pool=POOL):
    return RunStore(folder, Classification(dict.fromkeys(labels, "")), [example.id for example in pool.examples])


def state(next_round=1):
    n = len(POOL)
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(2), (4, n)).astype(np.float32)
    proba[:2, 1] = np.nan
    problems = np.array(["not a label: 'hm,\n=1'" if i == 1 else None for i in range(n)], object)
    said = Annotations(proba[0], proba[1], np.arange(n).astype(np.int16) - 1, problems)
    demos = (Demonstration(NASTY, LABELS[1], 0, 0.5, {"col: a": NASTY}), Demonstration("written", LABELS[0]))
    p_clean = rng.random(n).astype(np.float32)
    return LoopState(next_round, said, proba[2], proba[3], p_clean, p_clean > 0.5, 1 - p_clean, demos, 0.25)


def save(where, number, figures=None):
    with where.round(number) as record:
        return record.save(state(number + 1), UniformStudent(lambda texts: (2,)), Measured(figures or {"asked": 3}))


def interrupted(where, number):
    with where.round(number) as record:
        (record.folder / "annotations.parquet").write_bytes(b"half")
        raise KeyboardInterrupt


def test_a_round_comes_back_to_the_last_bit(tmp_path):
    save(store(tmp_path), 0)
    found, wanted = store(tmp_path).resume(), state()
    for name in ("posterior", "student", "p_clean", "clean"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes()
    for name in ("first", "proba", "asked_in"):
        assert getattr(found.annotations, name).tobytes() == getattr(wanted.annotations, name).tobytes()
    assert found.annotations.problems.tolist() == wanted.annotations.problems.tolist()
    assert (found.demos, found.next_round, found.changed) == (wanted.demos, 1, 0.25)


def test_vectors_of_the_student_come_back_where_they_are_kept(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(len(POOL), 3)).astype(np.float32)
    save(store(tmp_path), 0)
    assert store(tmp_path).resume().vectors is None
    with store(tmp_path).round(1) as record:
        record.save(replace(state(2), vectors=vectors), UniformStudent((2,)), Measured({}))
    found = store(tmp_path).resume().vectors
    assert (found.dtype, found.tobytes()) == (vectors.dtype, vectors.tobytes())


def test_what_a_round_was_shown_comes_back(tmp_path):
    save(store(tmp_path), 0)
    assert store(tmp_path).shown(tmp_path / "rounds" / "00") == {}
    told = {0: LABELS[1], 4: NASTY}
    with store(tmp_path).round(1) as record:
        record.save(state(2), UniformStudent((2,)), Measured({}, shown=told))
    assert store(tmp_path).shown(tmp_path / "rounds" / "01") == told
    (tmp_path / "rounds" / "01" / "shown.json").unlink()
    assert store(tmp_path).shown(tmp_path / "rounds" / "01") is None


def test_before_the_first_round_there_is_nothing_to_resume(tmp_path):
    assert store(tmp_path).resume() is None


def test_the_last_whole_round_is_resumed(tmp_path):
    for number in range(3):
        save(store(tmp_path), number)
    assert store(tmp_path).resume().next_round == 3
    assert [folder.name for folder in store(tmp_path).finished()] == ["00", "01", "02"]


def test_a_run_is_not_finished_from_the_begin_of_a_round(tmp_path):
    write_whole(tmp_path / SUMMARY, "{}")
    assert is_finished(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted(store(tmp_path), 0)
    assert not is_finished(tmp_path)


def test_a_half_written_round_is_not_seen_and_gives_way_to_the_next_try(tmp_path):
    save(store(tmp_path), 0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(store(tmp_path), 1)
    assert (tmp_path / "rounds" / "01.partial").is_dir()
    assert store(tmp_path).resume().next_round == 1
    save(store(tmp_path), 1)
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["00", "01"]


def test_the_figures_of_a_round_are_given_and_kept(tmp_path):
    given = save(store(tmp_path), 0, {"asked": 3, "clean": 0.5})
    assert given == {"round": 0, "changed": 0.25, "asked": 3, "clean": 0.5}
    assert store(tmp_path).report(tmp_path / "rounds" / "00") == given


def test_other_rows_than_those_of_the_run_are_refused(tmp_path):
    save(store(tmp_path), 0)
    other = Pool(POOL.examples[::-1])
    with pytest.raises(RunError, match="its rows are not those of the data now"):
        store(tmp_path, pool=other).resume()


def test_a_damaged_round_says_what_to_do(tmp_path):
    save(store(tmp_path), 0)
    (tmp_path / "rounds" / "00" / "posterior.parquet").write_bytes(b"gone")
    with pytest.raises(RunError, match="freeal repair"):
        store(tmp_path).resume()


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "rounds").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(RunError, match="could not be written"):
        save(store(tmp_path), 0)


def test_every_folder_of_a_round_is_synced_before_it_takes_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("freeal.store._sync_folder", synced.append)
    save(store(tmp_path), 0)
    partial = tmp_path / "rounds" / "00.partial"
    assert {partial, partial / "student", tmp_path / "rounds"} <= set(synced)


def test_labels_that_cannot_be_written_leave_those_that_are_there(tmp_path):
    written = store(tmp_path).write_labels(POOL, state()).with_name("labels.csv")
    before = written.read_bytes()
    (tmp_path / "labels.csv.partial").mkdir()  # nothing can be written there
    with pytest.raises(OSError, match=r"labels\.csv\.partial"):
        store(tmp_path).write_labels(POOL, state(2))
    assert written.read_bytes() == before


def test_a_round_holds_no_pickle(tmp_path):
    save(store(tmp_path), 0)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".parquet", ".jsonl", ".json"}


def test_the_labels_in_parquet_are_exact(tmp_path):
    store(tmp_path).write_labels(POOL, state())
    table = parquet.read_table(tmp_path / "labels.parquet").to_pydict()
    best = state().posterior.argmax(axis=1)
    assert table["text"] == list(TEXTS)
    assert table["id"][0] == "=r0"
    assert table["label"] == [LABELS[c] for c in best]
    assert np.array(table["probability"], np.float32).tobytes() == state().posterior.max(axis=1).tobytes()


def test_cells_of_the_csv_that_look_like_formulas_get_an_apostrophe(tmp_path):
    store(tmp_path).write_labels(POOL, state())
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["'" + text for text in TEXTS[:4]] + ["plain", "a = b"]
    assert rows[0]["id"] == "'=r0"
    assert {row["label"] for row in rows} <= set(LABELS)


def test_a_label_that_looks_like_a_formula_is_no_formula_in_the_csv(tmp_path):
    store(tmp_path, ("=cmd", "+1")).write_labels(POOL, state())
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} <= {"'=cmd", "'+1"}


def test_a_row_nobody_labelled_has_no_label_and_no_probability(tmp_path):
    store(tmp_path).write_labels(POOL, LoopState.start(len(POOL), (2,)))
    table = parquet.read_table(tmp_path / "labels.parquet").to_pydict()
    assert table["label"] == [None] * len(POOL)
    assert np.isnan(table["probability"]).all()
    assert table["source"] == ["nobody"] * len(POOL)
    assert table["believed"] == [False] * len(POOL)


def test_each_label_says_whether_it_is_believed_and_why(tmp_path):
    store(tmp_path).write_labels(POOL, state(), "understudy")
    table = parquet.read_table(tmp_path / "labels.parquet").to_pydict()
    assert table["believed"] == state().clean.tolist()
    assert table["why"] == reasons(state(), argmax, "understudy")
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["believed"] == "True" for row in rows] == table["believed"]
    assert [row["why"] for row in rows] == table["why"]


def test_the_environment_names_versions_and_no_machine_or_user():
    import getpass
    import platform

    found = environment(3)
    assert found["seed"] == 3
    assert {"freeal", "numpy"} <= set(found["versions"])
    assert platform.node() not in json.dumps(found)
    assert f'"{getpass.getuser()}"' not in json.dumps(found)


@pytest.mark.parametrize("name", ["demonstrations.jsonl", "report.json", "posterior.parquet"])
def test_a_round_that_was_damaged_is_not_gone_on_from(tmp_path, name):
    where = store(tmp_path)
    save(where, 0)
    path = where.finished()[0] / name
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunError, match=f"{name}: is not as it was written; mend it:  freeal repair"):
        where.resume()


def test_a_result_that_cannot_be_read_says_how_to_have_it_made_anew(tmp_path):
    where = store(tmp_path)
    (tmp_path / "rounds" / "00").mkdir(parents=True)
    where.choose(0, None)
    assert where.result().name == "00"
    (tmp_path / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"result\.json: cannot be read .* freeal run --resume"):
        where.result()
