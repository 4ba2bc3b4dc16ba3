"""Sentences read from every kind of row, written and read back; and faults with their place."""

import csv
import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeal import formats
from freeal.config import DataConfig
from freeal.data import load
from freeal.errors import DataError
from freeal.formats import Sentence, sentence_of
from freeal.tables import Table, open_table
from freeal.tasks.classification import fold
from freeal.tasks.spans import Span, join_tokens, split_words, tag_vocabulary, to_spans
from freeal.tasks.tokens import Tokens

TYPES = ("PER", "LOC", "side effect")


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8", newline="")
    return path


def table(path: Path):
    return open_table(str(path), "train", DataConfig(pool=str(path)))


def read(path: Path, types=TYPES, **columns: str) -> list[Sentence]:
    return list(read_sentences(table(path), types, **columns))


def read_sentences(rows, types, text=None, labels=None):
    known = None if types is None else {fold(name): name for name in types}
    for number, row in rows.rows:
        there = text or ("text" if "text" in row or "tokens" not in row else "tokens")
        told = labels or next((column for column in ("spans", "tags") if column in row), None)
        try:
            yield sentence_of(rows, row, known, there, told)
        except ValueError as error:
            raise rows.fault(number, str(error)) from error


def fault(path: Path, **columns: str) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **columns)
    return str(caught.value)


def sentence(text: str, *spans: tuple[str, str], uid: str | None = None) -> Sentence:
    """A text with the first places of some of its words as entities."""
    found = tuple(Span(text.index(words), text.index(words) + len(words), type_) for words, type_ in spans)
    return Sentence(uid, text, split_words(text), found)


def of_tokens(tokens: list[str], tags: list[str], uid: str | None = None) -> Sentence:
    text, words = join_tokens(tokens)
    return Sentence(uid, text, words, to_spans(tags, words))


ANN = of_tokens(["Ann", "Lee", "left", "New", "York", "."], ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"], "a")
BOB = of_tokens(["#", "Bob", "and", "Cy"], ["O", "B-PER", "O", "O"])
NASTY = sentence("  “Ann’s”\n👍🏽  Zoe\u0308, 東京.", ("Ann", "PER"), ("Zoe\u0308", "PER"), ("東京", "LOC"), uid="é 1")
SILENT = Sentence("c", "nobody knows", split_words("nobody knows"), None)
EMPTY = sentence("nothing here", uid="d")
ALL = [ANN, BOB, NASTY, SILENT, EMPTY]


# --- CoNLL

CONLL = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VB I-VP O

# id = s 2
# a comment
# text = Peter B-PER
Peter\tB-PER
Black burn\tI-PER


#\tO
B L-ORG"""


def test_sentences_of_a_conll_file_are_rows_with_their_first_line(tmp_path):
    rows = list(table(written(tmp_path / "x.conll", CONLL)).rows)
    assert rows == [
        (3, {"tokens": ["EU", "rejects"], "tags": ["I-ORG", "O"]}),
        (6, {"tokens": ["Peter", "Black burn"], "tags": ["B-PER", "I-PER"], "id": "s 2"}),
        (13, {"tokens": ["#", "B"], "tags": ["O", "L-ORG"]}),
    ]


@pytest.mark.parametrize("suffix", [".conll", ".bio", ".iob", ".IOB2", ".bio.gz"])
def test_every_suffix_and_line_end_is_read(tmp_path, suffix):
    content = "\ufeff# id a7\tdomain=train\r\n \r\nx\tB-PER\r\n \r\n".encode()
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert [row for _, row in table(path).rows] == [{"tokens": ["x"], "tags": ["B-PER"]}]


def test_ids_are_found_in_the_comments_that_are_about(tmp_path):
    for line, uid in (("# id = a b", "a b"), ("# id a7\tdomain=x", "a7"), ("# sent_id = 3", "3"), ("#id=B-7", None)):
        rows = table(written(tmp_path / "x.conll", f"{line}\nx O\n")).rows
        assert next(iter(rows))[1].get("id") == uid


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x O\ny\n", "line 2: 'y' has no tag; expected a token, and in the last column its tag"),
        ("x O\ny PER\n", "line 2: the last column of 'y': 'PER' is no tag; expected O, or B- or I- and a type"),
        ("x O\n# a comment\n", "line 2: the last column of '#': 'comment' is no tag"),
        ("x\tO\n\n\tO\n", "line 3: token 1 ('') is empty or has white space at an end"),
        ("x O\n\ny B-DOG\nz O\n", "line 3: 'DOG' is no type; types are 'PER', 'LOC', 'side effect'"),
        ("y B-LOK\n", "line 1: 'LOK' is no type; did you mean 'LOC'?"),
    ],
)
def test_a_broken_conll_file_is_told_with_its_place(tmp_path, content, message):
    path = written(tmp_path / "x.conll", content)
    assert fault(path).startswith(f"{path}: {message}")


# --- rows of other tables


def test_tokens_and_tags_or_text_and_spans(tmp_path):
    rows = [
        {"id": 7, "tokens": ["Ann", "left"], "tags": ["S-per", "O"]},
        {"text": "Ann left", "spans": [{"start": 0, "end": 3, "label": "Per", "text": "Ann"}]},
        {"text": "Ann left", "tokens": ["?"], "spans": [[0, 3, "PER"]]},
        {"text": "Ann left", "spans": None},
        {"text": "Ann left"},
        {"tokens": ["Ann", "left"]},
    ]
    path = written(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = read(path)
    assert {each.text for each in found} == {"Ann left"}
    assert [each.spans for each in found] == [(Span(0, 3, "PER"),)] * 3 + [None] * 3
    assert [each.id for each in found] == ["7", *[None] * 5]
    assert found[0].tags == ["B-PER", "O"]
    assert found[3].tags is None


def test_columns_may_have_other_names(tmp_path):
    path = written(tmp_path / "x.jsonl", '{"words": ["Ann"], "ner": ["B-PER"]}\n')
    assert read(path, text="words", labels="ner")[0].spans == (Span(0, 3, "PER"),)
    assert fault(path, text="word").endswith(
        "line 1: there is no column 'word'; did you mean 'words'?; there are 'words', 'ner'"
    )
    assert "there is no column 'nir'; did you mean 'ner'?" in fault(path, text="words", labels="nir")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"x": 1}, "there is no column 'text'; there are 'x'"),
        ({"text": 3}, "column 'text' holds neither a text nor a list of tokens: 3"),
        ({"tokens": ["a", 1]}, "column 'tokens' holds neither a text nor a list of tokens"),
        ({"tokens": ["a"], "tags": ["O", "O"]}, "2 tag(s) for 1 word(s); each word needs one"),
        ({"tokens": ["a"], "tags": "O"}, "labels are str, not a list: O; expected a tag for each token, such as"),
        ({"tokens": ["a"], "tags": []}, "0 tag(s) for 1 word(s); each word needs one"),
        ({"text": "a b", "tags": ["O", "O"]}, "O is no span; expected"),
        ({"text": "a b", "tags": ["O", "O"]}, "tags need a column 'tokens' beside the text"),
        ({"text": "a b", "tokens": ["b", "a"], "tags": ["O", "O"]},
         "token 2 ('a') is not in the text behind those before it; set data.text: tokens"),
        ({"tokens": ["a"], "tags": [3]}, "tag 3 is a number that nothing names; write tags as 'B-PER'"),
        ({"tokens": ["a"], "tags": [None]}, "tag None is no text"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "token 2 (' ') is empty or has white space at an end"),
        ({"text": "a", "spans": {}}, "labels are dict, not a list: {}; expected a tag for each token, such as"),
        ({"text": "a", "spans": {"start": [0], "end": []}}, "labels are dict, not a list"),
        ({"text": "a", "spans": [[0, 2, "PER"]]}, "span 0:2 'PER' ends after the text, which has 1 characters"),
        ({"text": "a", "spans": [[1, 1, "PER"]]}, "span 1:1 'PER' is empty or begins before its text"),
        ({"text": "a", "spans": [[0, "1", "PER"]]}, "[0, '1', 'PER'] is no span; expected {\"start\": 0,"),
        ({"text": "a", "spans": [{"start": 0, "end": 1, "type": "PER"}]}, "is no span; expected"),
        ({"text": "a", "spans": ["PER"]}, "PER is no span"),
        ({"text": "Ann in Rome", "spans": [{"start": 0, "end": 3, "label": "PER", "text": "Bob"}]},
         "span 0:3 'PER' is 'Ann' by its offsets and 'Bob' by its text; offsets count code points"),
        ({"text": "👍 Ann", "spans": [{"start": 3, "end": 5, "label": "PER", "text": "Ann"}]},
         "span 3:5 'PER' is 'nn' by its offsets and 'Ann' by its text"),
        ({"text": "a b", "spans": [[1, 2, "PER"]]}, "span 1:2 'PER' touches no word"),
        ({"text": "a b", "spans": [[2, 3, "LOC"], [0, 3, "PER"]]}, "spans 0:3 'PER' and 2:3 'LOC' overlap"),
        ({"text": "a b", "spans": [[0, 1, "PRE"]]}, "'PRE' is no type; did you mean 'PER'?"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_told_with_its_line(tmp_path, row, message):
    path = written(tmp_path / "x.jsonl", "\n" + json.dumps(row) + "\n")
    found = fault(path)
    assert found.startswith(f"{path}: line 2: ")
    assert message in found


# --- what is written is read back


def as_conll(folder: Path, sentences: list[Sentence]) -> Path:
    formats.write_conll(folder / "x.conll", sentences)
    return folder / "x.conll"


def as_jsonl(folder: Path, sentences: list[Sentence]) -> Path:
    formats.write_jsonl(folder / "x.jsonl", sentences)
    return folder / "x.jsonl"


def as_dataset(folder: Path, sentences: list[Sentence]) -> Path:
    formats.save_dataset(folder / "saved", sentences, TYPES)
    return folder / "saved"


def as_label_studio(folder: Path, sentences: list[Sentence]) -> Path:
    formats.write_label_studio(folder / "x.json", sentences)
    return folder / "x.json"


@pytest.mark.parametrize("write", [as_jsonl, as_dataset, as_label_studio])
def test_texts_and_spans_are_read_back_to_the_letter(tmp_path, write):
    found = read(write(tmp_path, ALL))
    assert [(each.id, each.text, each.spans) for each in found] == [(each.id, each.text, each.spans) for each in ALL]


@pytest.mark.parametrize("write", [as_conll, as_jsonl, as_dataset])
def test_sentences_of_tokens_are_read_back_with_their_tags(tmp_path, write):
    found = read(write(tmp_path, [ANN, BOB]))
    assert [(each.id, each.text, each.tokens, each.tags) for each in found] == [
        (each.id, each.text, each.tokens, each.tags) for each in (ANN, BOB)
    ]


def test_conll_keeps_the_words_of_any_text_and_tells_what_it_leaves_out(tmp_path):
    path = tmp_path / "x.conll"
    assert formats.write_conll(path, [*ALL, sentence("")]) == formats.Losses(sentences=2)
    labelled = [each for each in ALL if each.spans is not None]
    found = read(path)
    assert [(each.id, each.tokens, each.tags) for each in found] == [(e.id, e.tokens, e.tags) for e in labelled]
    assert path.read_text(encoding="utf-8").startswith("# id = a\nAnn\tB-PER\nLee\tI-PER\nleft\tO\n")


def test_the_tags_of_a_saved_data_set_are_named_classes(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = as_dataset(tmp_path, ALL)
    saved = datasets.load_from_disk(str(path))
    assert saved.features["tags"].feature.names == list(tag_vocabulary(TYPES))
    assert saved[0]["tags"] == [1, 2, 0, 3, 4, 0]
    assert saved[3]["tags"] is None
    found = read(path, text="tokens", labels="tags")
    assert [(each.tokens, each.tags) for each in found] == [(each.tokens, each.tags) for each in ALL]
    saved.to_parquet(str(tmp_path / "x.parquet"))
    assert read(tmp_path / "x.parquet", text="tokens", labels="tags") == found


TOKEN = st.text(st.characters(exclude_categories=["Cs", "C", "Z"]), min_size=1, max_size=5).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.tuples(TOKEN, st.sampled_from(tag_vocabulary(TYPES))), min_size=1), min_size=1))
def test_any_tokens_and_tags_survive_conll_and_jsonl(tmp_path, rows):
    sentences = [of_tokens([token for token, _ in row], [tag for _, tag in row]) for row in rows]
    assert read(as_conll(tmp_path, sentences)) == sentences
    assert [(s.text, s.spans) for s in read(as_jsonl(tmp_path, sentences))] == [(s.text, s.spans) for s in sentences]


@pytest.mark.parametrize("tag", ["O", "B-PER"])
def test_a_first_token_that_looks_like_a_comment_survives_conll(tmp_path, tag):
    for tokens, tags in ((["#"], [tag]), (["#1"], [tag]), (["#", "Ann"], [tag, "B-PER"])):
        sentences = [of_tokens(tokens, tags)]
        assert read(as_conll(tmp_path, sentences)) == sentences


def test_what_conll_cannot_say_is_told_and_leaves_the_old_file(tmp_path):
    path = written(tmp_path / "x.conll", "old")
    with pytest.raises(
        DataError, match="'a\\\\tb' has a tab or line break, which CoNLL has no way to write; use jsonl"
    ):
        formats.write_conll(path, [of_tokens(["a\tb"], ["O"])])
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"x\.jsonl: cannot be written"):
        formats.write_jsonl(tmp_path / "nowhere" / "x.jsonl", [ANN])


# --- what is corrected in Label Studio


def region(start: int, end: int, text: str, *labels: str) -> dict[str, object]:
    value = {"start": start, "end": end, "text": text, "labels": list(labels)}
    return {"value": value, "id": "Dx_aB91ISN", "from_name": "ner", "to_name": "text", "type": "labels"}


def choice(*names: str, **place: int) -> dict[str, object]:
    value = {**place, "choices": list(names)}
    return {"value": value, "id": "x", "from_name": "topic", "to_name": "text", "type": "choices", "origin": "manual"}


def annotation(*results: dict[str, object], **said: bool) -> dict[str, object]:
    head = {"id": 9, "completed_by": 1, "result": list(results), "was_cancelled": False, "ground_truth": False}
    return {**head, **said, "created_at": "2021-03-09T22:16:08.728353Z", "lead_time": 4.288}


def task(number: int, text: str, *annotations: dict[str, object], predictions: tuple[object, ...] = (), **data: str):
    head = {"id": number, "file_upload": "x.json", "drafts": [], "meta": {}, "project": 1}
    return {**head, "annotations": list(annotations), "predictions": list(predictions), "data": {"text": text, **data}}


def tasks(folder: Path, *found: dict[str, object]) -> Path:
    return written(folder / "project-1-at-2021.json", json.dumps(found, ensure_ascii=False))


ANN_IN_ROME = [region(0, 3, "Ann", "PER"), region(7, 11, "Rome", "LOC")]


def test_entities_corrected_in_label_studio_are_read(tmp_path):
    guess = {"model_version": "freeal", "score": 0.5, "result": [region(0, 3, "Ann", "LOC")]}
    relation = {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"}
    path = tasks(
        tmp_path,
        task(1, "Ann in Rome", annotation(*ANN_IN_ROME, relation), predictions=(guess,), id="a"),
        task(2, "Ann in Rome", annotation(), predictions=(guess,)),
        task(3, "Ann in Rome", annotation(*ANN_IN_ROME, was_cancelled=True), predictions=(guess,)),
        task(4, "Ann in Rome", predictions=(guess,)),
        task(5, "Ann in Rome", annotation(), annotation(*ANN_IN_ROME, ground_truth=True)),
        task(6, "Ann\nLee", annotation(region(0, 7, "Ann\\nLee", "PER"))),
    )
    found, both = read(path), (Span(0, 3, "PER"), Span(7, 11, "LOC"))
    assert [each.id for each in found] == ["a", "2", "3", "4", "5", "6"]
    assert [each.spans for each in found] == [both, (), None, None, both, (Span(0, 7, "PER"),)]


def test_predictions_of_label_studio_count_where_nobody_annotated(tmp_path):
    guess = {"model_version": "freeal", "result": ANN_IN_ROME}
    found = read(tasks(tmp_path, task(1, "Ann in Rome", predictions=(guess,)), task(2, "Ann", predictions=(3,))))
    assert [each.spans for each in found] == [(Span(0, 3, "PER"), Span(7, 11, "LOC")), None]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (region(1, 4, "Ann", "PER"), "object 1: span 1:4 'PER' is 'nn ' by its offsets and 'Ann' by its text"),
        (region(0, 3, "Ann", "PER", "LOC"), "object 1: spans 0:3 'LOC' and 0:3 'PER' overlap"),
        (region(0, 3, "Ann"), "is no span; expected"),
        ({"type": "labels"}, "is no span; expected"),
    ],
)
def test_what_is_no_entity_in_label_studio_is_told(tmp_path, result, message):
    assert message in fault(tasks(tmp_path, task(1, "Ann in Rome", annotation(result))))


def test_choices_of_label_studio_are_labels(tmp_path):
    path = tasks(
        tmp_path,
        task(1, "one", annotation(choice("price"), choice("looks", start=0, end=2))),
        task(2, "two", annotation(choice("price", "speed"))),
        task(3, "none", annotation()),
        task(4, "unknown"),
    )
    rows = [row for _, row in table(path).rows]
    assert [(row["labels"], row["label"]) for row in rows] == [
        (["price"], "price"),
        (["price", "speed"], ["price", "speed"]),
        ([], None),
        (None, None),
    ]
    assert set(rows[0]) == {"id", "text", "labels", "label"}


def test_other_objects_with_data_are_no_tasks(tmp_path):
    rows = [{"text": "x", "data": {"a": 1}}, {"text": "y", "data": {}, "predictions": "none"}]
    assert [row for _, row in table(written(tmp_path / "x.json", json.dumps(rows))).rows] == rows


# --- what others read


def of_label_studio(path: Path) -> list[Sentence]:
    """Sentences as Label Studio shows them: it looks up what lies between two offsets, counted in code points."""
    found = []
    for task in json.loads(path.read_text(encoding="utf-8")):
        text, results = task["data"]["text"], [each["result"] for each in task["predictions"]]
        assert all(r["value"]["text"] == text[r["value"]["start"] : r["value"]["end"]] for rs in results for r in rs)
        spans = [
            tuple(Span(v["start"], v["end"], *v["labels"]) for v in (result["value"] for result in each))
            for each in results
        ]
        found.append(Sentence(task["data"]["id"], text, split_words(text), *(spans or [None])))
    return found


def of_spacy(path: Path) -> list[Sentence]:
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import DocBin

    found = []
    for doc in DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab):
        unknown = bool(len(doc)) and not doc.has_annotation("ENT_IOB")
        spans = None if unknown else tuple(Span(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents)
        found.append(Sentence(None, doc.text, split_words(doc.text), spans))
    return found


def test_label_studio_says_the_same_of_every_sentence(tmp_path):
    emoji = sentence("👍🏽👩‍👩‍👧 Ann in 東京", ("Ann", "PER"), ("東京", "LOC"), uid="e")
    whole = [ANN, NASTY, SILENT, EMPTY, emoji]
    formats.write_label_studio(tmp_path / "x.json", whole)
    assert of_label_studio(tmp_path / "x.json") == [replace(each, words=split_words(each.text)) for each in whole]


def test_label_studio_gets_entities_as_a_scored_prediction(tmp_path):
    sure = replace(NASTY, probabilities=(0.5, 0.75, 1.0), probability=0.4)
    formats.write_label_studio(tmp_path / "x.json", [sure, EMPTY, SILENT])
    tasks = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("freeal", 0.4)
    assert [result["score"] for result in prediction["result"]] == [0.5, 0.75, 1.0]
    assert {(r["from_name"], r["to_name"], r["type"]) for r in prediction["result"]} == {("label", "text", "labels")}
    assert len({result["id"] for result in prediction["result"]}) == 3
    assert tasks[1]["predictions"] == [{"model_version": "freeal", "result": []}]
    assert tasks[2]["predictions"] == []


def test_spacy_says_the_same_of_every_sentence(tmp_path):
    pytest.importorskip("spacy")
    formats.write_spacy(tmp_path / "x.spacy", ALL)
    found = of_spacy(tmp_path / "x.spacy")
    assert [(each.text, each.spans) for each in found] == [(each.text, each.spans) for each in ALL]


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_file_for_spacy_is_there_whole_or_as_it_was(tmp_path, monkeypatch):
    pytest.importorskip("spacy")
    (tmp_path / "x.spacy").write_bytes(b"before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"x\.spacy: cannot be written"):
        formats.write_spacy(tmp_path / "x.spacy", [ANN])
    assert (tmp_path / "x.spacy").read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["x.spacy"]


def test_spans_are_widened_to_the_tokens_of_spacy(tmp_path):
    pytest.importorskip("spacy")
    lost = formats.write_spacy(tmp_path / "x.spacy", [sentence("so Annlike", ("Ann", "PER"), ("like", "LOC"))])
    assert lost == formats.Losses(entities=1, widened=1)
    (found,) = of_spacy(tmp_path / "x.spacy")
    assert found.spans == (Span(3, 10, "PER"),), "of two that share a token one is kept"


def test_texts_are_cut_as_spacy_does_in_their_language(tmp_path):
    pytest.importorskip("spacy")
    given = sentence("he isn't", ("is", "VERB"))
    formats.write_spacy(tmp_path / "many.spacy", [given])
    formats.write_spacy(tmp_path / "en.spacy", [given], "en")
    (many,), (english,) = of_spacy(tmp_path / "many.spacy"), of_spacy(tmp_path / "en.spacy")
    assert many.spans == (Span(3, 8, "VERB"),), "the whole word"
    assert english.spans == given.spans


def test_a_language_that_spacy_does_not_know_is_told(tmp_path):
    pytest.importorskip("spacy")
    with pytest.raises(DataError, match=r"x\.spacy: spaCy has no rules for the language 'qq'"):
        formats.write_spacy(tmp_path / "x.spacy", [ANN], "qq")


def test_without_spacy_it_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(DataError, match=r'needs the package spacy; install it with: pip install "freeal\[spacy\]"'):
        formats.write_spacy(tmp_path / "x.spacy", [ANN])


# --- the benchmark sets, where they are at hand


@pytest.mark.real
@pytest.mark.parametrize("name", ["conll03", "bc5cdr-chem", "bc5cdr-disease"])
def test_the_benchmark_sets_survive_conll(shared, tmp_path, name):
    folder = shared / "data" / name
    types = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    sentences = list(read_sentences(table(folder / "test.jsonl"), types))
    assert formats.write_conll(tmp_path / "x.conll", sentences) == formats.Losses()
    assert list(read_sentences(table(tmp_path / "x.conll"), types)) == sentences


@pytest.mark.parametrize(
    ("row", "spans"),
    [
        ({"text": "Ann sings", "gold": '[{"start": 0, "end": 3, "label": "PER"}]'}, (Span(0, 3, "PER"),)),
        ({"text": "Ann sings", "gold": {"start": [0], "end": [3], "label": ["PER"]}}, (Span(0, 3, "PER"),)),
        ({"text": "Ann sings", "gold": '["B-PER", "O"]', "tokens": '["Ann", "sings"]'}, (Span(0, 3, "PER"),)),
        ({"text": "(Ann) sings", "gold": ["O", "B-PER", "O"], "tokens": ["(", "Ann", "sings"]}, (Span(1, 4, "PER"),)),
        ({"text": "Ann sings", "gold": ""}, None),
        ({"text": "Ann sings", "gold": " "}, None),
        ({"text": "Ann sings", "gold": "null"}, None),
        ({"text": "Ann sings", "gold": []}, ()),
        (
            {"text": "Ann\n Lee", "gold": [{"start": 0, "end": 8, "label": "PER", "text": "Ann Lee"}]},
            (Span(0, 8, "PER"),),
        ),
        ({"text": "Ann", "gold": [{"start": 0, "end": 3, "label": "PER", "text": None}]}, (Span(0, 3, "PER"),)),
    ],
)
def test_labels_are_known_by_what_they_hold(row, spans):
    assert sentence_of(Table("rows.csv", "line", ()), row, {"per": "PER"}, "text", "gold").spans == spans


@pytest.mark.parametrize("cells", [(["Ann", "sings"], [[0, 3, "PER"]]), ('["Ann", "sings"]', '[[0, 3, "PER"]]')])
def test_spans_may_be_those_of_tokens_and_both_json_in_cells(cells):
    row = dict(zip(("tokens", "spans"), cells, strict=True))
    found = sentence_of(Table("rows.csv", "line", ()), row, None, "tokens", "spans")
    assert (found.text, found.tokens, found.spans) == ("Ann sings", ["Ann", "sings"], (Span(0, 3, "PER"),))
    assert sentence_of(Table("rows.csv", "line", ()), {**row, "spans": []}, None, "tokens", "spans").spans == ()


@pytest.mark.parametrize("inner", ["sequence", "list"])
@pytest.mark.parametrize("saved_as", ["folder", "parquet"])
def test_spans_of_a_data_set_may_have_numbers_of_classes(tmp_path, inner, saved_as):
    datasets = pytest.importorskip("datasets")
    number, label = datasets.Value("int64"), datasets.ClassLabel(names=["LOC", "PER"])
    span = {"start": number, "end": number, "label": label}
    features = datasets.Features(
        text=datasets.Value("string"), spans=datasets.Sequence(span) if inner == "sequence" else [span]
    )
    spans = {"start": [0], "end": [3], "label": [1]}
    rows = [spans] if inner == "sequence" else [[{key: each[0] for key, each in spans.items()}]]
    saved = datasets.Dataset.from_dict({"text": ["Ann sings"], "spans": rows}, features)
    place = tmp_path / ("x.parquet" if saved_as == "parquet" else "x")
    (saved.to_parquet if saved_as == "parquet" else saved.save_to_disk)(str(place))
    assert [each.spans for each in read(place)] == [(Span(0, 3, "PER"),)]


def test_a_class_of_a_span_that_the_data_set_does_not_name_is_told():
    rows = Table("x", "row", (), {"spans": ["PER"]})
    with pytest.raises(ValueError, match="1 is none of the 1 classes that the data set names"):
        sentence_of(rows, {"text": "Ann", "spans": [[0, 3, 1]]}, None, "text", "spans")


def test_entities_that_share_a_token_are_counted_as_lost_in_conll_and_in_tags_alone(tmp_path):
    pytest.importorskip("datasets")
    text = "Berlin/Paris and US-Iran"
    spans = tuple(Span(text.index(name), text.index(name) + len(name), "LOC") for name in ("Berlin", "Paris", "US"))
    both = [Sentence("a", text, join_tokens(text.split()).words, spans)]
    assert formats.write_conll(tmp_path / "x.conll", both) == formats.Losses(entities=1, widened=2)
    assert formats.save_dataset(tmp_path / "saved", both, TYPES) == formats.Losses(entities=1, widened=2)
    assert formats.write_jsonl(tmp_path / "x.jsonl", both) == formats.Losses()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "x.conll", "x.jsonl"]


@pytest.mark.parametrize(
    "cell",
    [
        "['EU' 'rejects']", "['EU'\n 'rejects']", "['EU', 'rejects']", "array(['EU'], dtype='<U2')", "['EU', None]",
        """["It's", 'fine']""", """["It's" 'fine']""", "array(['EU', 'it'], dtype=object)",
    ],
)  # fmt: skip
def test_a_list_as_python_prints_it_is_no_text(tmp_path, cell):
    with (tmp_path / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["tokens"], [cell]])
    with pytest.raises(DataError, match=r"x\.csv: line 2: column 'tokens' holds a list as Python prints it.*as JSON"):
        load(DataConfig(pool=str(tmp_path / "x.csv"), text="tokens"), Tokens({"PER": ""}), 0)


@pytest.mark.parametrize("cell", ['["Stop!" said Ann. "No!"]', "[music]", "[1] Ann's", "['Tis the season]"])
def test_a_text_in_brackets_is_one(tmp_path, cell):
    with (tmp_path / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sentence"], [cell]])
    assert load(DataConfig(pool=str(tmp_path / "x.csv"), text="sentence"), Tokens({"PER": ""}), 0).pool.texts == [cell]


def test_a_first_column_that_numbers_the_tokens_is_none(tmp_path):
    path = tmp_path / "germeval.conll"
    path.write_text(
        "#\thttp://de.wikipedia.org [2009-10-17]\n1\tAnn\tB-PER\tO\n2\tLee\tI-PER\tB-LOC\n\n1\tNew\tO\tO\n",
        encoding="utf-8",
    )
    found = read(path)
    assert [each.tokens for each in found] == [["Ann", "Lee"], ["New"]]
    assert [each.tags for each in found] == [["O", "B-LOC"], ["O"]]
    path.write_text("1\tAnn\tO\n2\tLee\tO\n\n7\tNew\tO\n", encoding="utf-8")
    assert [each.tokens for each in read(path)] == [["1", "2"], ["7"]]


def test_a_table_whose_last_column_looks_like_tags_is_read_by_its_header(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("id\ttext\tgroup\n1\tAnn sings\tB-side\n2\tBob\tO\n", encoding="utf-8")
    assert load(DataConfig(pool=str(path)), Tokens({"PER": ""}), 0).pool.texts == ["Ann sings", "Bob"]
    path = tmp_path / "y.tsv"
    path.write_text("-DOCSTART-\n\nAnn\tB-PER\nsings\tO\n\nBob\tB-PER\n", encoding="utf-8")
    assert load(DataConfig(pool=str(path)), Tokens({"PER": ""}), 0).pool.texts == ["Ann sings", "Bob"]
    path = tmp_path / "x.txt"
    path.write_text("my texts\nVitamin B-12\nblood type O\n", encoding="utf-8")
    with pytest.raises(
        DataError, match="it is read as CoNLL, as most of its lines end in a tag: if it is none, save it"
    ):
        load(DataConfig(pool=str(path)), Tokens({"PER": ""}), 0)
