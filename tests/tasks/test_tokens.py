"""Entities as the LLM writes them: in lines, or in JSON that a schema holds."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from freeal.prompts import load
from freeal.tasks.spans import Span, split_words
from freeal.tasks.tokens import BEHIND, MOST_WORDS, Tokens
from freeal.types import Demonstration, Example

LINES = Tokens({"PER": "", "LOC": ""})
HELD = LINES.in_json()
TEXT = 'Ann and "Bob" met Ann in Paris . Paris laughed .'
SPANS = [Span(0, 3, "PER"), Span(9, 12, "PER"), Span(18, 21, "PER"), Span(25, 30, "LOC"), Span(33, 38, "PER")]
PROMPT = """---
task: tokens
labels: [PER, LOC]
---
## user
{{ text }}

## assistant
{{ entities }}
"""


@pytest.mark.parametrize("spans", [SPANS, SPANS[:3], []])
def test_what_is_written_as_json_is_read_as_it_was(spans):
    best = HELD.tagged(TEXT, spans)
    said = HELD.heard(HELD.write(TEXT, best), TEXT)
    assert said.problem is None
    np.testing.assert_array_equal(said.proba.argmax(-1), best)


def test_json_names_each_occurrence_in_the_order_of_the_text():
    written = json.loads(HELD.write(TEXT, HELD.tagged(TEXT, SPANS)))
    assert [(each["text"], each["type"]) for each in written["entities"]] == [
        ("Ann", "PER"), ("Bob", "PER"), ("Ann", "PER"), ("Paris", "LOC"), ("Paris", "PER"),
    ]  # fmt: skip


def test_what_is_written_keeps_to_the_schema():
    schema = HELD.form.schema
    item = schema["properties"]["entities"]["items"]
    (entity,) = json.loads(HELD.pretended(1, TEXT))["entities"]
    assert list(entity) == item["required"]
    assert entity["type"] in item["properties"]["type"]["enum"]


def test_lines_have_no_form_of_their_own():
    assert LINES.form is None
    assert LINES.pretended(0, TEXT) == "PER: Ann"
    assert HELD.in_json() == HELD


def test_a_prompt_in_json_says_so_and_shows_demonstrations_bare(tmp_path):
    (tmp_path / "names.md").write_text(PROMPT, encoding="utf-8")
    prompt = load(tmp_path / "names.md")
    shown = [Demonstration("Ann slept", HELD.pretended(0, "Ann slept"))]
    chat = prompt.in_json().render(Example("1", TEXT), shown)
    assert [message.role for message in chat] == ["system", "user", "assistant", "user"]
    assert HELD.form.told in chat[0].content
    assert json.loads(chat[2].content) == {"entities": [{"text": "Ann", "type": "PER"}]}
    assert prompt.in_json().request(Example("1", TEXT)).schema == HELD.form.schema
    lines = prompt.request(Example("1", TEXT), [Demonstration("Ann slept", "PER: Ann")])
    assert lines.schema is None
    assert [message.content for message in lines.messages[:2]] == ["Ann slept", "PER: Ann"]


def test_whoever_wrote_no_json_is_told_how():
    assert HELD.form.told in HELD.correction(())
    assert "JSON" not in LINES.correction(())


LONG = "Ann " + "word " * (MOST_WORDS - 2) + "Bob Lee Cy"
"""Bob is the last word that is read."""


@pytest.mark.parametrize("task", [LINES, HELD])
def test_an_entity_behind_the_last_word_read_is_dropped_and_counted(task):
    said = task.heard("PER: Ann | Cy | Bob Lee", LONG)
    assert [span.of(LONG) for span in task.spans(LONG, said.proba.argmax(-1))] == ["Ann"]
    assert said.dropped == (BEHIND, BEHIND)
    assert said.named == ("ann", "cy", "bob lee")


@pytest.mark.parametrize("named", ["Cy", "Bob Lee", "Cy | Zed"])
def test_where_all_that_was_named_is_behind_the_last_word_read_the_answer_abstains(named):
    said = LINES.heard(f"PER: {named}", LONG)
    assert said.proba is None
    assert said.problem.startswith(f"all that was named ends {BEHIND}: '{named.partition(' |')[0]}'")
    assert BEHIND in said.dropped


def test_gold_behind_the_last_word_read_is_left_out_whole():
    spans = [Span(LONG.index(name), LONG.index(name) + len(name), "PER") for name in ("Ann", "Bob Lee", "Cy")]
    gold = LINES.gold([LONG], [spans])
    assert gold.shape == (1, MOST_WORDS)
    assert LINES.spans(LONG, gold[0]) == (spans[0],)
    assert LINES.spans(LONG, LINES.gold([LONG], [[Span(LONG.index("Bob"), LONG.index(" Lee"), "PER")]])[0])


# --- what is written is read as it was


NASTY = [
    "Smith; Jones LLP", "A | B", "|", "| x", "x |", "a | | b", "None", "none", "N/A", "No entities", "Portland, Oregon",
    "A, B and C", '["Ann"]', "[1]", "[", "PER: x", "LOC:", "1. x", "N - acetyl", "* x", "x (LOC)", '"', "-", "*", ".",
    "``` x", "x, LOC: y", "x | PER: y", "U.S.", "US", "us", "1 , 2 - DMH", "3,  4", "[ 3H ] - x", "[a] [b]",
]  # fmt: skip


def has_more_than_punctuation(words):
    return any(unicodedata.category(character)[0] in "LNS" for character in words)


def written_and_read(task, text, spans):
    """The entities that a demonstration names of a text that has `spans`; None where it cannot be one."""
    best = task.tagged(text, spans)
    if not task.tells(text, best):
        return None
    return task.spans(text, task.heard(task.write(text, best), text).proba.argmax(-1))


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("task", [LINES, HELD])
def test_a_name_is_read_back_whatever_is_in_it(task, name):
    text = f"Ann met {name} here"
    spans = tuple(Span(8, 8 + len(name), "PER") for name in [name] if split_words(name))
    found = written_and_read(task, text, spans)
    assert found == spans or (found is None and not has_more_than_punctuation(name))


def test_a_name_that_has_no_line_of_its_own_is_in_json():
    text = "Smith; Jones LLP sued Acme"
    assert LINES.write(text, LINES.tagged(text, [Span(0, 16, "PER"), Span(22, 26, "PER")])) == (
        'PER: ["Smith; Jones LLP", "Acme"]'
    )


def test_a_name_that_begins_like_a_type_is_read_back_over_a_line_break():
    text = "Ann sang LOC:\nRome"
    spans = (Span(0, 3, "PER"), Span(9, 18, "PER"))
    assert written_and_read(LINES, text, spans) == spans


@given(st.lists(st.sampled_from([*NASTY, "Ann", "Bob", "in", ",", ";"]), min_size=1, max_size=6), st.data())
def test_what_is_written_of_names_with_marks_in_them_is_read_as_it_was(names, data):
    starts = [sum(len(name) + 1 for name in names[:i]) for i in range(len(names))]
    chosen = data.draw(st.lists(st.sampled_from(range(len(names))), unique=True, max_size=3).map(sorted))
    types = [data.draw(st.sampled_from(["PER", "LOC"])) for _ in chosen]
    text = " ".join(names)
    spans = [Span(starts[i], starts[i] + len(names[i]), kind) for i, kind in zip(chosen, types, strict=True)]
    spans = LINES.spans(text, LINES.tagged(text, spans))  # at the borders of words
    words = [span.of(text) for span in spans]
    assume(all(text.count(each) == words.count(each) for each in words))  # who names words once means all of them
    sayable = all(map(has_more_than_punctuation, words))
    for task in (LINES, HELD):
        found = written_and_read(task, text, spans)
        assert found == spans or (found is None and not sayable)


@pytest.mark.parametrize("types", [("LOC", "PER"), ("PER", "LOC")])
def test_words_of_two_types_are_written_in_the_order_of_the_text(types):
    spans = tuple(Span(span.start, span.end, kind) for span, kind in zip(SPANS[3:], types, strict=True))
    named = [{"text": "Paris", "type": kind} for kind in types]
    assert json.loads(LINES.write(TEXT, LINES.tagged(TEXT, spans))) == {"entities": named}
    assert written_and_read(LINES, TEXT, spans) == spans
    assert LINES.write(TEXT, LINES.tagged(TEXT, SPANS[:3])) == "PER: Ann | Bob"


@pytest.mark.parametrize(
    ("text", "words", "tells"),
    [
        (LONG, "Ann", False),
        ("Ann -", "Ann", True),
        ("Ann -", "-", False),
        ("May is in May", "May", False),  # named once, it stands for both
    ],
)
def test_a_label_that_is_not_told_whole_is_no_demonstration(text, words, tells):
    start = text.index(words)
    assert LINES.tells(text, LINES.tagged(text, [Span(start, start + len(words), "PER")])) is tells
