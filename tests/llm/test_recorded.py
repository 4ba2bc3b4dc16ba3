"""Labels that were given before, from files of several kinds."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freeal.errors import DataError
from freeal.ledger import WAYS, Ledger
from freeal.llm import Request
from freeal.llm.recorded import RecordedLLM
from freeal.llm.replayed import ReplayedLLM

LABELS = ("negative", "positive")
ROWS = [{"id": "r1", "label": "positive"}, {"id": "r2", "label": None}, {"id": "r3", "label": "no idea"}]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        cells = [list(rows[0]), *([value or "" for value in row.values()] for row in rows)]
        mark = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(mark.join(map(str, row)) + "\n" for row in cells), encoding="utf-8")
    return path


def recorded(path, labels=LABELS):
    return RecordedLLM.from_labels(path, "id", "label", labels)


def replies(llm, *uids):
    return [(reply.text, reply.problem) for reply in llm.complete([Request((), LABELS, uid=uid) for uid in uids])]


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.parquet"])
def test_a_reply_is_found_by_the_id_of_the_example(tmp_path, name):
    llm = recorded(write(tmp_path / name, ROWS))
    assert replies(llm, "r3", "r1", "r2", "r9") == [
        ("no idea", None),
        ("positive", None),
        (None, "no label recorded"),
        (None, "no reply recorded for this row"),
    ]


def test_numbers_are_class_indices(tmp_path):
    rows = [{"id": i, "label": label} for i, label in enumerate([1, 0, -1, 7])]
    llm = recorded(write(tmp_path / "labels.jsonl", rows))
    assert [text for text, _ in replies(llm, "0", "1", "2", "3")] == ["positive", "negative", None, "7"]


def test_numbers_are_labels_where_labels_are_numbers(tmp_path):
    llm = recorded(write(tmp_path / "labels.jsonl", [{"id": "r1", "label": 1}]), labels=("1", "0"))
    assert replies(llm, "r1") == [("1", None)]


def test_an_id_with_two_labels_is_refused(tmp_path):
    path = write(tmp_path / "labels.jsonl", [*ROWS, {"id": "r1", "label": "negative"}])
    with pytest.raises(DataError, match=r"labels.jsonl: line 4: id 'r1' was 'positive' before and is 'negative' here"):
        recorded(path)


def test_the_same_row_twice_does_no_harm(tmp_path):
    assert replies(recorded(write(tmp_path / "labels.csv", ROWS + ROWS)), "r1") == [("positive", None)]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    path = write(tmp_path / "labels.csv", ROWS)
    with pytest.raises(DataError, match=r"no column 'gpt'; there are 'id', 'label'"):
        RecordedLLM.from_labels(path, "id", "gpt", LABELS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b"{\n"),
        ("a.csv", b"id,label\n\xff,x\n"),
        ("a.parquet", b"no"),
        ("a.xlsx", b""),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        recorded(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        recorded(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"id": "1", "label": "x"}\n\n{"id": "2", "label" "x"}\n', r"a\.jsonl: line 3, column 21: no JSON"),
        ("a.jsonl", '\n{"label": "x"}\n', r"a\.jsonl: line 2: no column 'id'; there are 'label'"),
        ("a.csv", "id,label\nr1,x\nr2\n", r"a\.csv: line 3: 1 value\(s\) where the header names 2 column\(s\)"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, name, content, told):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        recorded(tmp_path / name)


def test_labels_may_be_in_another_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("id,label\nr1,schön\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"looks like latin-1.*llm\.encoding"):
        recorded(tmp_path / "a.csv")
    llm = RecordedLLM.from_labels(tmp_path / "a.csv", "id", "label", LABELS, encoding="latin-1")
    assert replies(llm, "r1") == [("schön", None)]


def test_another_file_is_another_llm_wherever_it_lies(tmp_path):
    (tmp_path / "moved").mkdir()
    first, moved = write(tmp_path / "a.csv", ROWS), write(tmp_path / "moved" / "b.csv", ROWS)
    other = write(tmp_path / "c.csv", ROWS[:1])
    assert recorded(first).identity == recorded(moved).identity
    assert recorded(first).identity != recorded(other).identity


@pytest.mark.parametrize(("ways", "room"), [({"room": 2048}, 2048), ({}, 0), (None, 0)])
def test_a_replayed_run_is_asked_with_the_room_that_its_replies_had(tmp_path, ways, room):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        if ways is not None:
            ledger.remember(WAYS, {"asked": {}, "ways": ways})
    assert ReplayedLLM(tmp_path / "ledger.sqlite").capabilities.room == room
