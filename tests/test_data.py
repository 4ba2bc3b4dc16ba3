import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeal import prompts
from freeal.config import DataConfig
from freeal.data import Corpus, load
from freeal.errors import DataError
from freeal.tasks.classification import Classification
from freeal.tasks.multilabel import Multilabel
from freeal.tasks.spans import Span
from freeal.tasks.tokens import MOST_WORDS, Tokens

LABELS = ("negative", "positive")
ROWS = [
    {"id": "a", "text": "good, really", "label": "positive"},
    {"id": "b", "text": 'a "bad" one', "label": "negative"},
]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_jsonl(path: Path, rows: list[object]) -> Path:
    return written(path, "".join(json.dumps(row) + "\n" for row in rows))


def as_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(pool: Path, seed: int = 0, labels: tuple[str, ...] = LABELS, **settings: object) -> Corpus:
    return load(DataConfig(pool=str(pool), **settings), Classification(dict.fromkeys(labels, "")), seed)


def fault(pool: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(pool, **settings)
    return str(caught.value)


# --- every kind of file gives the same corpus


WRITERS = {
    ".csv": as_csv,
    ".tsv": lambda path, rows: as_csv(path, rows, "\t"),
    ".jsonl": as_jsonl,
    ".ndjson": as_jsonl,
    ".json": lambda path, rows: written(path, json.dumps(rows, indent=1)),
    ".parquet": as_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_kind_of_file_gives_the_same_pool_and_gold(tmp_path, suffix):
    corpus = read(WRITERS[suffix](tmp_path / f"pool{suffix}", ROWS), gold="label")
    assert [(e.id, e.text, dict(e.fields)) for e in corpus.pool.examples] == [
        ("a", "good, really", {}),
        ("b", 'a "bad" one', {}),
    ]
    assert corpus.gold.tolist() == [1, 0]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".tsv"])
def test_text_files_may_be_packed(tmp_path, suffix):
    plain = WRITERS[suffix](tmp_path / f"pool{suffix}", ROWS)
    packed = written(tmp_path / f"pool{suffix}.gz", gzip.compress(plain.read_bytes()))
    assert read(packed) == read(plain)


def test_a_text_file_has_one_text_a_line_and_ids_by_content(tmp_path):
    pool = read(written(tmp_path / "pool.txt", "one\r\n\r\ntwo, three\u2028four\r\none")).pool
    assert pool.texts == ["one", "two, three\u2028four", "one"]
    assert [len(example.id) for example in pool.examples] == [16, 16, 18]
    assert pool[2].id == pool[0].id + "-2"


@pytest.mark.parametrize("split", [None, "train"])
def test_a_saved_data_set_turns_class_numbers_into_names(tmp_path, split):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS[::-1])})
    saved = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, 1, -1]}, features)
    (datasets.DatasetDict({split: saved}) if split else saved).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved", gold="label").gold.tolist() == [1, 0, -1]
    if split:
        assert "no split 'trian'; did you mean 'train'?" in fault(tmp_path / "saved", split="trian")


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    pool = read(written(tmp_path / "p.csv", b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines"\r\n\r\n2,x\r\n')).pool
    assert [(example.id, example.text) for example in pool.examples] == [("1", "two\r\nlines"), ("2", "x")]


def test_another_encoding_is_read_when_it_is_named(tmp_path):
    path = written(tmp_path / "p.csv", "text\ncafé\n".encode("utf-16"))
    assert read(path, encoding="utf-16").pool.texts == ["café"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_what_is_written_is_read_back_word_for_word(tmp_path, texts):
    rows = [{"id": f"r{i}", "text": text} for i, text in enumerate(texts)]
    kept = [text for text in texts if text.strip()]
    for write, name in ((as_csv, "p.csv"), (as_jsonl, "p.jsonl")):
        if kept:
            assert read(write(tmp_path / name, rows)).pool.texts == kept


# --- columns


def test_other_columns_become_fields_but_gold_never_does(tmp_path):
    rows = [{"text": "x", "label": "positive", "stars": 5, "tags": ["a"], "note": None}]
    corpus = read(as_jsonl(tmp_path / "p.jsonl", rows), gold="label")
    assert corpus.pool[0].fields == {"stars": "5", "tags": '["a"]'}
    assert "positive" not in repr(corpus.pool)


def test_rows_without_an_id_get_one_from_their_text(tmp_path):
    path = as_jsonl(tmp_path / "p.jsonl", [{"text": "x"}, {"id": "", "text": "y"}, {"id": 7, "text": "z"}])
    ids = [example.id for example in read(path).pool.examples]
    assert ids[0] == "2d711642b726b044"
    assert ids[2] == "7"


def test_the_only_column_is_the_text(tmp_path):
    assert read(written(tmp_path / "p.csv", "sentence\nx\n")).pool.texts == ["x"]


def test_a_rewording_is_kept_for_the_student(tmp_path):
    path = as_jsonl(tmp_path / "p.jsonl", [{"text": "x", "back": "ex"}, {"text": "y", "back": None}])
    assert read(path, rewording="back").pool.inputs().rewordings == ["ex", None]


@pytest.mark.parametrize("setting", ["text", "id", "gold", "rewording"])
def test_an_unknown_column_is_told_with_the_one_meant(tmp_path, setting):
    path = as_csv(tmp_path / "p.csv", [{"text": "x", "title": "y"}])
    message = f"{path}: data.{setting}: there is no column 'titel'; did you mean 'title'?; there are 'text', 'title'"
    assert fault(path, **{setting: "titel"}) == message


# --- gold


def test_gold_may_be_missing_or_a_place_in_the_labels(tmp_path):
    rows = [{"text": str(i), "label": value} for i, value in enumerate(["1", 0, None, -1, 1.0, "Positive "])]
    assert read(as_jsonl(tmp_path / "p.jsonl", rows), gold="label").gold.tolist() == [1, 0, -1, -1, 1, 1]


def test_numbers_that_are_labels_are_no_places(tmp_path):
    path = as_jsonl(tmp_path / "p.jsonl", [{"text": "x", "label": 1}, {"text": "y", "label": "2"}])
    assert read(path, gold="label", labels=("1", "2")).gold.tolist() == [0, 1]
    path = as_jsonl(tmp_path / "p.jsonl", [{"text": "x", "label": 0}])
    assert "gold '0' in column 'label' is no label" in fault(path, gold="label", labels=("1", "2"))


def test_gold_that_is_no_label_is_told_with_its_line(tmp_path):
    path = as_csv(tmp_path / "p.csv", [*ROWS, {"id": "c", "text": "x", "label": "positiv"}])
    assert fault(path, gold="label") == (
        f"{path}: line 4: gold 'positiv' in column 'label' is no label; did you mean 'positive'?; "
        "labels are 'negative', 'positive'"
    )


def test_only_the_test_needs_gold(tmp_path):
    pool, test = written(tmp_path / "p.txt", "x\n"), as_csv(tmp_path / "t.csv", ROWS)
    corpus = read(pool, test=str(test), gold="label")
    assert corpus.gold is None
    assert corpus.test_gold.tolist() == [1, 0]


# --- rows


def test_empty_texts_are_skipped_and_duplicates_kept_and_both_are_told(tmp_path):
    path = written(tmp_path / "p.csv", "id,text\na,x\nb, \nc,x\n,\nd,y\n")
    corpus = read(path)
    assert corpus.pool.texts == ["x", "x", "y"]
    assert (corpus.report.rows, corpus.report.empty, corpus.report.duplicates) == (5, ("b", "line 5"), 1)
    assert corpus.report.notes() == ["2 empty texts skipped, first b", "1 repeated texts, asked about once"]


def test_pool_texts_that_are_in_the_test_are_told(tmp_path):
    pool = as_csv(tmp_path / "p.csv", [{"id": "a", "text": "A  CAFÉ "}, {"id": "b", "text": "x"}])
    test = written(tmp_path / "t.txt", "a cafe\u0301\n")
    assert read(pool, test=str(test)).report.leaked == ("a",)


def test_a_sample_is_shuffled_by_the_seed_and_order_kept_without(tmp_path):
    path = written(tmp_path / "p.txt", "".join(f"{i}\n\n" for i in range(100)))
    assert read(path).pool.texts == [str(i) for i in range(100)]
    chosen = [str(i) for i in np.random.default_rng(3).permutation(100)[:10]]
    assert read(path, seed=3, sample=10).pool.texts == chosen
    assert sorted(read(path, sample=1000).pool.texts, key=int) == [str(i) for i in range(100)]


def test_what_is_told_of_a_sample_is_about_the_sample(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text(
        "".join(f"a text of words {i}\n" if i % 2 else f"{i}\n" for i in range(40)) + "\n\n", encoding="utf-8"
    )
    whole, some = read(path, max_words=3), read(path, max_words=3, sample=10)
    assert (whole.report.cut, len(whole.report.empty)) == (20, 2)
    assert (some.report.cut, some.report.empty) == (sum(text == "a text of" for text in some.pool.texts), ())


def test_gold_follows_its_rows_into_the_sample(tmp_path):
    rows = [{"text": f"{LABELS[i % 2]} {i}", "label": LABELS[i % 2]} for i in range(50)]
    path = as_jsonl(tmp_path / "p.jsonl", rows)
    corpus = read(path, seed=1, sample=20, gold="label", test=str(path), test_sample=5)
    assert [LABELS[index] for index in corpus.gold] == [text.split()[0] for text in corpus.pool.texts]
    assert corpus.test.texts == read(path, seed=0, sample=5).pool.texts


def test_long_texts_are_cut_after_max_words(tmp_path):
    corpus = read(written(tmp_path / "p.txt", "one  two three\none two\n"), max_words=2)
    assert corpus.pool.texts == ["one  two", "one two"]
    assert corpus.report.notes() == ["1 texts cut to data.max_words"]


def marked(count: int, *spans: tuple[int, int]) -> dict[str, object]:
    """A row of `count` tokens, each two characters long, and the entities of these words."""
    return {"text": " ".join(["ab"] * count), "spans": [[3 * start, 3 * end - 1, "X"] for start, end in spans]}


def test_texts_longer_than_what_is_read_and_the_gold_behind_are_counted(tmp_path):
    rows = [marked(MOST_WORDS, (126, 128)), marked(MOST_WORDS + 2, (0, 1), (127, 129), (129, 130)), marked(3, (1, 2))]
    path, config = as_jsonl(tmp_path / "p.jsonl", rows), {"gold": "spans"}
    task = Tokens({"X": ""})
    corpus = load(DataConfig(pool=str(path), **config), task, 0)
    assert (corpus.report.long, corpus.report.lost) == (1, 2)
    assert [len(task.spans(text, gold)) for text, gold in zip(corpus.pool.texts, corpus.gold, strict=True)] == [1, 1, 1]
    both = load(DataConfig(pool=str(path), test=str(path), test_sample=3, **config), task, 0)
    assert (both.report.long, both.report.lost) == (2, 4)
    short = load(DataConfig(pool=str(path), max_words=127, **config), task, 0)
    assert (short.report.cut, short.report.long, short.report.lost) == (2, 0, 3)
    assert load(DataConfig(pool=str(path), sample=1, **config), task, 1).report.lost in (0, 2)


def test_gold_within_words_counts_as_whole_words_and_is_counted(tmp_path):
    task, text = Tokens({"DOSE": "", "UNIT": ""}), "take 10mg daily"
    rows = [
        {"text": text, "spans": [[5, 7, "DOSE"], [7, 9, "UNIT"]]},
        {"text": text, "spans": [[5, 9, "DOSE"], [10, 15, "UNIT"]]},
        {"text": text, "spans": [[5, 10, "DOSE"], [10, 13, "UNIT"]]},
        {"tokens": ["take", "10mg"], "spans": ["O", "B-DOSE"]},
    ]
    path = as_jsonl(tmp_path / "p.jsonl", rows)
    corpus = load(DataConfig(pool=str(path), gold="spans"), task, 0)
    assert task.spans(text, corpus.gold[0]) == (Span(5, 9, "DOSE"),)
    assert (corpus.report.lost, corpus.report.moved) == (1, 3)
    both = load(DataConfig(pool=str(path), test=str(path), gold="spans"), task, 0)
    assert (both.report.lost, both.report.moved) == (2, 6)


def test_an_entity_that_is_not_read_takes_no_word_from_one_that_is(tmp_path):
    text = " ".join(["ab"] * (MOST_WORDS + 2))
    last = 3 * (MOST_WORDS - 1)
    row = {"text": text, "spans": [[last, last + 1, "X"], [last + 1, len(text), "X"]]}
    task = Tokens({"X": ""})
    corpus = load(DataConfig(pool=str(as_jsonl(tmp_path / "p.jsonl", [row])), gold="spans"), task, 0)
    assert task.spans(text, corpus.gold[0]) == (Span(last, last + 2, "X"),)
    assert (corpus.report.lost, corpus.report.moved) == (1, 1)


def test_a_text_without_a_word_is_empty_where_words_are_labelled(tmp_path):
    path = written(tmp_path / "p.csv", "id,text\na,Ann\nb,\u200b\nc,\u00ad \u2060\n")
    assert load(DataConfig(pool=str(path)), Tokens({"PER": ""}), 0).report.empty == ("b", "c")
    assert read(path).report.empty == ()
    with pytest.raises(DataError, match="all 2 texts in column 'text' are empty"):
        load(DataConfig(pool=str(written(tmp_path / "b.csv", "id,text\nb,\u200b\nc,\u00ad\n"))), Tokens({"PER": ""}), 0)


def test_empty_texts_of_a_test_are_told_where_all_of_it_is_read(tmp_path):
    pool = written(tmp_path / "p.csv", "id,text\na,fine\n")
    test = written(tmp_path / "t.csv", "id,text\nb,good\nc,\nd,bad\n")
    assert read(pool, test=str(test)).report.notes() == ["1 empty texts of the test skipped, first c"]
    assert read(pool, test=str(test), test_sample=1).report.notes() == []


# --- faults name the file, the line, what was found, and the way out


def test_duplicate_ids_are_told_with_both_lines(tmp_path):
    path = as_csv(tmp_path / "p.csv", [{"id": f"r{i % 7}", "text": f"{i}"} for i in range(14)])
    message = fault(path)
    assert message.startswith(f"{path}: 7 duplicate id(s): 'r0' on lines 2 and 9, 'r1' on lines 3 and 10, ")
    assert "'r4' on lines 6 and 13, ...; ids must be unique" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "text\nok\ncafé\n".encode("latin-1"),
         "line 3: byte 11 (b'\\xe9') is no utf-8; the file looks like latin-1: set data.encoding to latin-1"),
        ("p.csv", "text\nx\n".encode("utf-16"), "the file looks like utf-16: set data.encoding to utf-16"),
        ("p.csv", "text\nx\n".encode("utf-16-le"), "line 1: has NUL bytes; remove them; the file looks like utf-16-le"),
        ("p.csv", b"id,text\n1,a\0b\n", "line 2: has NUL bytes; remove them"),
        ("p.csv", "id,text\n1,x\n2,y, z\n",
         "line 3: 3 value(s) where the header names 2 column(s) (id, text); a text that contains"),
        ("p.csv", 'id,text\n1,x\n2,"open\n3,y\n', "line 3: unexpected end of data; a quote inside"),
        ("p.csv", "text,text\nx,y\n", "line 1: column 'text' is there twice"),
        ("p.csv", "id;text\n1;x\n", "line 1: columns seem to be separated by ';'"),
        ("p.csv", "id,text\n", "there are no rows to label"),
        ("p.txt", "", "there are no rows to label"),
        ("p.txt", "\n \n", "all 2 texts in column 'text' are empty"),
        ("p.jsonl", '{"text": "x"}\n{"text": "y",}\n', "line 2, column 14: no JSON: "),
        ("p.jsonl", '{"text": "x"}\n["y"]\n', 'line 2: expected an object such as {"text": "..."}, found list'),
        ("p.jsonl", '{"text": "a\\ud800"}\n', "line 1: column 'text' has the lone surrogate '\\ud800' at character 2"),
        ("p.jsonl", '{"text": "a\\u0000"}\n', "line 1: column 'text' has a NUL character at character 2"),
        ("p.jsonl", '{"text": ["a"]}\n', "line 1: column 'text' holds list, not text"),
        ("p.jsonl", "[" * 100_000 + "\n", "line 1: no usable JSON"),
        ("p.json", '{"text": "x"}', "expected a list of objects, found dict"),
        ("p.json", '{"text": "x"}\n{"text": "y"}', "line 2, column 1: no JSON: Extra data near"),
        ("p.json", "[1]", 'object 1: expected an object such as {"text": "..."}, found int'),
        ("p.csv.gz", gzip.compress(b"text\n" + bytes(range(1, 127)))[:80], "the packed file is cut off or damaged"),
        ("p.txt.gz", b"no gzip", "the packed file is cut off or damaged"),
        ("p.parquet", b"no parquet", "no parquet file"),
        ("p.xlsx", b"", "cannot tell the kind of this file; known are .csv, .tsv"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_with_its_place(tmp_path, name, content, message):
    path = written(tmp_path / name, content)
    assert (found := fault(path)).startswith(f"{path}: ")
    assert message in found


def test_a_missing_file_is_told_with_its_neighbour(tmp_path):
    written(tmp_path / "reviews.csv", "text\nx\n")
    assert fault(tmp_path / "review.csv").endswith("no such file; did you mean 'reviews.csv'?")
    assert fault(tmp_path / "nowhere" / "x.csv").endswith(f"its folder {tmp_path / 'nowhere'} does not exist either")
    assert "a folder, but no data set saved by save_to_disk" in fault(tmp_path)


@pytest.mark.parametrize("encoding", ["utf8x", "hex", "rot13"])
def test_an_unknown_encoding_is_told(tmp_path, encoding):
    told = fault(written(tmp_path / "p.txt", "x\n"), encoding=encoding)
    assert f"data.encoding: {encoding!r} is no known encoding" in told


def test_utf16_without_its_mark_is_told(tmp_path):
    path = written(tmp_path / "p.txt", "plain text\n")
    assert "the file looks like utf-8: set data.encoding to utf-8" in fault(path, encoding="utf-16")


def test_a_text_of_a_megabyte_and_ten_thousand_columns_are_no_trouble(tmp_path):
    assert len(read(as_csv(tmp_path / "p.csv", [{"text": "long " * 200_000}])).pool[0].text) == 1_000_000
    wide = {"text": "x", **{f"c{i}": "y" for i in range(10_000)}}
    assert len(read(as_csv(tmp_path / "p.csv", [wide])).pool[0].fields) == 10_000


# --- the benchmark sets, where they are at hand

SIZES = {
    "mr": (8662, 2000),
    "sst2": (6920, 1821),
    "subj": (8000, 2000),
    "trec": (5452, 500),
    "ma": (9544, 2888),
    "banking77": (10003, 3080),
    "tweeteval-emotion": (3257, 1421),
}


@pytest.mark.real
@pytest.mark.parametrize("name", SIZES)
def test_the_benchmark_sets_fit_their_prompts(shared, name):
    folder = shared / "data" / name
    prompt = prompts.load(Path(__file__).parent.parent / "prompts" / f"{name}.md")
    test = str(folder / "test.jsonl")
    corpus = read(folder / "train.jsonl", labels=prompt.task.classes, test=test, gold="label")
    assert (corpus.report.rows, len(corpus.test) + len(corpus.report.test_empty)) == SIZES[name]
    assert list(prompt.task.classes) == json.loads((folder / "labels.json").read_text())
    assert set(Counter(corpus.gold.tolist())) == set(range(len(prompt.labels)))


# --- gold of several labels a text

TOPICS = ("price", "speed", "looks")


def gold_of(path: Path, labels: tuple[str, ...] = TOPICS, gold: object = "topics") -> list[list[int]]:
    found = load(DataConfig(pool=str(path), gold=gold), Multilabel(dict.fromkeys(labels, "")), 0).gold
    assert found is not None
    return found.tolist()


def gold_fault(path: Path, labels: tuple[str, ...] = TOPICS, gold: object = "topics") -> str:
    with pytest.raises(DataError) as caught:
        gold_of(path, labels, gold)
    return str(caught.value)


def topic_rows(folder: Path, *told: object) -> Path:
    return as_jsonl(folder / "p.jsonl", [{"text": f"text {i}", "topics": each} for i, each in enumerate(told)])


def test_a_blank_cell_of_several_labels_is_unknown_and_none_is_the_empty_set(tmp_path):
    path = written(tmp_path / "pool.csv", "text,topics\nfirst,\nsecond,none\nthird,a;b\nfourth,[]\nfifth,[ ]\n")
    assert gold_of(path, ("a", "b")) == [[-1, -1], [0, 0], [1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("told", "answer"),
    [("[]", "no"), ("none", "no"), ('["price"]', "yes"), ("price; speed", "yes"), ("speed", "no"), (";", ";"),
     ("[null]", "[null]"), ('["price", null]', '["price", null]'), ("prize", "prize")],
)  # fmt: skip
def test_a_recorded_cell_says_what_the_same_cell_of_gold_does_or_nothing(told, answer):
    assert Multilabel(dict.fromkeys(TOPICS, "")).answered(told, 0) == {"answer": answer}


def test_labels_as_python_prints_them_are_told_with_the_mend(tmp_path):
    path = written(tmp_path / "pool.csv", "text,topics\nfirst,\"['price', 'speed']\"\n")
    assert (
        "line 2: column 'topics' holds a list as Python prints it: ['price', 'speed']; write it as JSON"
        in gold_fault(path)
    )


@pytest.mark.parametrize("told", [[None], [""], [" ", None], "[null]", '[""]', ";", [float("nan")]])
def test_blanks_alone_are_unknown_labels(tmp_path, told):
    assert gold_of(topic_rows(tmp_path, told, [])) == [[-1, -1, -1], [0, 0, 0]]


@pytest.mark.parametrize("told", [["price", None], ["price", ""], '["price", null]'])
def test_a_blank_beside_labels_is_told(tmp_path, told):
    message = gold_fault(topic_rows(tmp_path, ["price"], told))
    assert f"line 2: gold {told!r} in column 'topics' has a blank beside labels; leave it out" in message


def test_missing_classes_of_a_data_set_are_unknown_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    topics = datasets.Sequence(datasets.ClassLabel(names=list(TOPICS)))
    features = datasets.Features(text=datasets.Value("string"), topics=topics)
    datasets.Dataset.from_dict({"text": ["x"], "topics": [[-1]]}, features).save_to_disk(tmp_path / "saved")
    assert gold_of(tmp_path / "saved") == [[-1, -1, -1]]


@pytest.mark.parametrize(
    "told", [[1, 0, 0], [1.0, 0.0, 0.0], [True, False, False], "[1, 0, 0]", "1;0;0", ["1", "0", "0"]]
)
def test_a_zero_or_one_for_each_label_is_read_as_such(tmp_path, told):
    assert gold_of(topic_rows(tmp_path, told, [0, 0, 0], None)) == [[1, 0, 0], [0, 0, 0], [-1, -1, -1]]


def test_zero_and_one_of_two_labels_may_be_their_numbers_and_are_refused(tmp_path):
    assert gold_of(topic_rows(tmp_path, [1, 1], [False, True]), ("a", "b")) == [[1, 1], [0, 1]]
    message = gold_fault(topic_rows(tmp_path, [0, 1]), ("a", "b"))
    assert "line 1: gold '0, 1' in column 'topics': numbers do not tell which labels are meant; write names" in message
    assert "0 or 1 for each" not in message


@pytest.mark.parametrize("told", [[0, 2], [1], 1, "1", "0;2", [1, 0, 0, 0], ["price", 1], -1, True])
def test_bare_numbers_are_no_labels_of_several(tmp_path, told):
    message = gold_fault(topic_rows(tmp_path, ["price"], told))
    assert message.startswith(f"{tmp_path / 'p.jsonl'}: line 2: gold ")
    assert message.endswith(
        'in column \'topics\': numbers do not tell which labels are meant; write names, such as ["price", "speed"], or '
        "a 0 or 1 for each of the 3 labels; where each label has a column with 0 and 1, set data.gold: [price, speed, "
        "looks]"
    )


def test_labels_that_are_numbers_are_names_and_so_are_classes_of_a_data_set(tmp_path):
    assert gold_of(topic_rows(tmp_path, [1, 0], "2"), ("0", "1", "2")) == [[1, 1, 0], [0, 0, 1]]
    datasets = pytest.importorskip("datasets")
    topics = datasets.Sequence(datasets.ClassLabel(names=["speed", "looks", "price"]))
    features = datasets.Features(text=datasets.Value("string"), topics=topics)
    datasets.Dataset.from_dict({"text": ["x"], "topics": [[0, 2]]}, features).save_to_disk(tmp_path / "saved")
    assert gold_of(tmp_path / "saved") == [[1, 1, 0]]


def test_each_label_may_have_a_column_of_its_own(tmp_path):
    rows = [("1", "0", "true"), ("False", "0.0", "0"), ("", " ", "")]
    cells = [dict(zip(TOPICS, row, strict=True)) for row in rows]
    path = as_csv(tmp_path / "p.csv", [{"text": f"text {i}", **each} for i, each in enumerate(cells)])
    config = DataConfig(pool=str(path), gold=["looks", "price", "speed"])
    corpus = load(config, Multilabel(dict.fromkeys(TOPICS, "")), 0)
    assert corpus.gold.tolist() == [[1, 0, 1], [0, 0, 0], [-1, -1, -1]]
    assert corpus.pool[0].fields == {}, "gold is no field"
    assert "set data.gold: [price, speed, looks]" in gold_fault(path, gold="price")


@pytest.mark.parametrize(
    ("row", "gold", "message"),
    [
        (("1", "x", "0"), TOPICS, "line 2: gold 'x' in column 'speed'; expected 0 or 1, true or false (all columns of"),
        (("1", "", "0"), TOPICS, "line 2: gold '' in column 'speed'; expected 0 or 1"),
        (
            ("1", "1", "0"),
            TOPICS[:2],
            "data.gold: price, speed: expected a column of 0 and 1 for each label, and of its",
        ),
    ],
)
def test_columns_of_labels_that_cannot_be_used_are_told(tmp_path, row, gold, message):
    path = as_csv(tmp_path / "p.csv", [{"text": "x", **dict(zip(TOPICS, row, strict=True))}])
    assert message in gold_fault(path, gold=gold)


def test_columns_of_labels_must_be_there_and_are_for_several_labels_alone(tmp_path):
    path = as_csv(tmp_path / "p.csv", [{"text": "x", "price": "1"}])
    assert "line 2: data.gold: there is no column 'speed' here; there are 'text', 'price'" in gold_fault(
        path, gold=TOPICS
    )
    path = as_csv(tmp_path / "p.csv", [{"text": "x"}])
    assert "data.gold: there is no column 'price'" in gold_fault(path, gold=TOPICS)
    assert fault(path, gold=LABELS).endswith(
        "several columns are for several labels a text; a task of kind classification takes one"
    )


@pytest.mark.parametrize(
    "about",
    [b"{", b"[]", b'{"info": null}', b'{"info": {"features": {"label": {"_type": "ClassLabel"}, "text": []}}}'],
)
def test_what_others_note_in_a_parquet_file_is_no_fault_of_the_texts(tmp_path, about):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"text": ["fine"], "label": ["positive"]}).replace_schema_metadata({b"huggingface": about})
    pq.write_table(table, tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet", gold="label").gold.tolist() == [LABELS.index("positive")]


def test_choices_of_label_studio_are_gold(tmp_path):
    tasks = [
        {
            "id": i,
            "data": {"text": f"text {i}"},
            "annotations": [{"result": [{"type": "choices", "value": value}, {"type": ["choices"]}]}],
        }
        for i, value in enumerate([{"choices": ["price"]}, {"choices": ["speed"]}])
    ]
    path = written(tmp_path / "p.json", json.dumps([*tasks, {"data": {"text": "new"}, "annotations": []}]))
    assert gold_of(path, gold="labels") == [[1, 0, 0], [0, 1, 0], [-1, -1, -1]]
    assert read(path, labels=TOPICS, gold="label").gold.tolist() == [0, 1, -1]


# --- texts with entities


def entities(path: Path, gold: str | None = None, **settings: object) -> Corpus:
    return load(DataConfig(pool=str(path), gold=gold, **settings), Tokens({"PER": "", "LOC": ""}), 0)


def entities_fault(path: Path, gold: str | None = None, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        entities(path, gold, **settings)
    return str(caught.value)


def spans_of(corpus: Corpus) -> list[list[tuple[int, int]] | None]:
    """Places of the entities of each row; None where gold is unknown."""
    task = Tokens({"PER": "", "LOC": ""})
    assert corpus.gold is not None
    return [
        None if -1 in row else [(span.start, span.end) for span in task.spans(example.text, row)]
        for example, row in zip(corpus.pool.examples, corpus.gold, strict=True)
    ]


TAGGED = "EU B-LOC\nrejects O\nAnn B-PER\nLee I-PER\n\nBob B-PER\n"


@pytest.mark.parametrize("name", ["train.txt", "eng.train", "train.tsv", "train", "train.txt.gz", "train.conll"])
@pytest.mark.parametrize("between", [" ", "\t", " NN I-NP "])
def test_tokens_with_tags_are_known_whatever_the_name_of_the_file(tmp_path, name, between):
    content = "-DOCSTART- -X- -X- O\n\n" + TAGGED.replace(" ", between)
    path = written(tmp_path / name, gzip.compress(content.encode()) if name.endswith(".gz") else content)
    corpus = entities(path, "tags")
    assert corpus.pool.texts == ["EU rejects Ann Lee", "Bob"]
    assert spans_of(corpus) == [[(0, 2), (11, 18)], [(0, 3)]]
    assert entities(path).pool.texts == corpus.pool.texts


def test_a_file_of_texts_stays_one(tmp_path):
    path = written(tmp_path / "p.txt", "Ann met Bob\nVitamin B-12\n\nTeam O\nNobody\n")
    assert entities(path).pool.texts == ["Ann met Bob", "Vitamin B-12", "Team O", "Nobody"]
    path = written(tmp_path / "p.tsv", "text\tsource\nAnn met Bob\tO\n")
    assert entities(path, text="text").pool.texts == ["Ann met Bob"]
    assert read(written(tmp_path / "q.txt", TAGGED)).pool.texts[0] == "EU B-LOC", "one label a text"


def test_a_line_without_its_tag_is_told_whatever_the_name_of_the_file(tmp_path):
    message = entities_fault(written(tmp_path / "p.txt", TAGGED.replace("rejects O", "rejects")))
    assert "line 2: 'rejects' has no tag; expected a token, and in the last column its tag" in message


def test_tokens_without_tags_are_read_under_their_name_and_asked_about_under_others(tmp_path):
    content = "# id = a\n#\nEU\n\nBob\n"
    corpus = entities(written(tmp_path / "p.conll", content))
    first = corpus.pool[0]
    assert (first.id, first.text, first.tokenized) == ("a", "# EU", True)
    assert corpus.pool.texts == ["# EU", "Bob"]
    assert "there is no column 'tags'; there are" in entities_fault(tmp_path / "p.conll", "tags")
    message = entities_fault(written(tmp_path / "p.txt", "EU\nrejects\n\nBob\n"))
    assert "rename it to .conll if each is a token; remove the blank lines if each is a text" in message
    assert entities(written(tmp_path / "q.txt", "EU\nrejects\nBob\n")).pool.texts == ["EU", "rejects", "Bob"]
    message = entities_fault(written(tmp_path / "eng.train", "EU\nrejects\n"))
    assert message.endswith("(text also as .gz); a file of a token and its tag a line must end in .conll")


def test_rows_of_texts_and_rows_of_tokens_may_be_in_one_file(tmp_path):
    rows = [
        {"tokens": ["Ann", "x"], "gold": ["B-PER", "O"]},
        {"text": "Bob came", "gold": [[0, 3, "PER"]]},
        {"text": "(Ann) came", "tokens": ["(", "Ann", ")", "came"], "gold": ["O", "B-PER", "O", "O"]},
        {"text": None, "tokens": ["Ann", "came"], "gold": None},
        {"text": "", "tokens": ["Bob", "x"], "gold": [{"start": 0, "end": 3, "label": "PER"}]},
    ]
    for order in (rows, rows[::-1]):
        corpus = entities(as_jsonl(tmp_path / "p.jsonl", order), "gold")
        expected = {
            "Ann x": [(0, 3)],
            "Bob came": [(0, 3)],
            "(Ann) came": [(1, 4)],
            "Ann came": None,
            "Bob x": [(0, 3)],
        }
        assert dict(zip(corpus.pool.texts, spans_of(corpus), strict=True)) == expected
        whole = {example.text for example in corpus.pool.examples if not example.tokenized}
        assert whole == {"Bob came", "(Ann) came"}
        assert corpus.report.empty == ()


def test_the_text_of_a_row_is_the_same_whatever_gold_is_asked_for(tmp_path):
    row = {"text": "(Ann)", "tokens": ["(", "Ann", ")"], "tags": ["O", "B-PER", "O"], "spans": [[1, 4, "PER"]]}
    path = as_jsonl(tmp_path / "p.jsonl", [row])
    assert {entities(path, gold).pool[0].text for gold in (None, "tags", "spans")} == {"(Ann)"}
    assert spans_of(entities(path, "tags")) == spans_of(entities(path, "spans")) == [[(1, 4)]]
    assert entities(path, "tags", text="tokens").pool[0].text == "( Ann )"


def test_cells_of_a_csv_may_hold_tokens_and_tags(tmp_path):
    cells = {"tokens": '["Ann", "x"]', "tags": '["B-PER", "O"]'}
    corpus = entities(as_csv(tmp_path / "p.csv", [cells]), "tags")
    assert (corpus.pool[0].text, corpus.pool[0].tokenized, spans_of(corpus)) == ("Ann x", True, [[(0, 3)]])
    path = as_csv(tmp_path / "q.csv", [{"words": cells["tokens"], "tags": cells["tags"]}])
    assert spans_of(entities(path, "tags", text="words")) == [[(0, 3)]]


@pytest.mark.parametrize(
    ("name", "content"), [("p.csv", "sentence\nAnn met Bob\n"), ("p.jsonl", '{"s": "Ann met Bob"}\n')]
)
def test_the_only_column_is_the_text_with_entities_too(tmp_path, name, content):
    first = entities(written(tmp_path / name, content)).pool[0]
    assert (first.text, first.tokenized, dict(first.fields)) == ("Ann met Bob", False, {})


@pytest.mark.parametrize("column", ["tokens", "words"])
def test_the_only_column_may_hold_tokens(tmp_path, column):
    first = entities(as_jsonl(tmp_path / "p.jsonl", [{column: ["Ann", "met"]}])).pool[0]
    assert (first.text, first.tokenized) == ("Ann met", True)


def test_a_row_without_text_and_tokens_is_told(tmp_path):
    path = as_jsonl(tmp_path / "p.jsonl", [{"text": "Ann", "spans": None}, {"texts": "Bob", "spans": []}])
    assert entities_fault(path, "spans") == (
        f"{path}: line 2: there is no column 'text' or 'tokens'; did you mean 'texts'?; there are 'texts', 'spans'; "
        "name the one with the text, or with its tokens, in data.text"
    )


def test_a_blank_cell_of_entities_is_unknown(tmp_path):
    path = written(tmp_path / "p.csv", 'text,spans\nAnn,"[[0, 3, ""PER""]]"\nBob,\nnobody,[]\n')
    assert spans_of(entities(path, "spans")) == [[(0, 3)], None, []]
