import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from freeal.errors import PromptError
from freeal.tasks.classification import Classification, validate_labels

NASTY = [
    "a, b",
    "🎉 party",
    'say "x"',
    "'q'",
    "[/x]",
    "two\nlines",
    "=cmd|' /C'!A0",
    "../a",
    "no",
    "1",
    "{{7*7}}",
    "ß.",
]


@pytest.fixture
def task():
    return Classification({"negative": "disliked", "positive": "liked", "general conditions": ""})


@pytest.mark.parametrize(
    "reply",
    [
        "positive", " Positive\n", "POSITIVE", "positive.", '"positive"', "'Positive.'", "`positive`", "**positive**",
        "_positive_", "“positive”", "Label: positive", "**Label:** positive", "label : 'positive'.", "**positive**.",
        '{"label": "positive"}', '```json\n{"label": "positive"}\n```', "```\npositive\n```",
        '{"why": "fun", "Label": "Positive"}',
    ],
)  # fmt: skip
def test_form_does_not_matter(task, reply):
    assert task.read(reply) == (1, None)


@pytest.mark.parametrize(
    "reply",
    [
        "Maybe positive?", "posit", "positive/negative", "positive, negative", "positive negative", "not positive",
        "neutral", "general", "positive..", '{"label": ["positive"]}', '{"label": "positive", "label": "negative"}',
        '{"label": true}', '{"answer": "positive"}', '{"label": "positive"} {"label": "negative"}', "[" * 5000, "**",
        "...", "Label:", "positive\nnegative",
    ],
)  # fmt: skip
def test_anything_but_one_label_abstains_and_quotes_the_reply(task, reply):
    label, problem = task.read(reply)
    assert label is None
    assert problem == f"not a label: {reply[:80]!r}"


@pytest.mark.parametrize("reply", [None, "", " \n\t"])
def test_an_empty_reply_has_a_problem_of_its_own(task, reply):
    assert task.read(reply) == (None, "empty reply")


def test_choices_keep_the_order_of_the_labels(task):
    assert task.classes == ("negative", "positive", "general conditions")


def test_numbers_are_labels_in_json_too():
    assert Classification({"1": "bad", "2": "good"}).read('{"label": 2}').label == 1


def test_composed_and_decomposed_accents_are_one_label():
    assert Classification({"caf\u00e9": "", "bar": ""}).read("CAFE\u0301").label == 0


@pytest.mark.parametrize("index", range(len(NASTY)))
def test_nasty_labels_are_read_back(index):
    task = Classification(dict.fromkeys(NASTY, ""))
    for reply in (NASTY[index], json.dumps({"label": NASTY[index]}), f"Label: {NASTY[index]}", f"`{NASTY[index]}`"):
        assert task.read(reply) == (index, None)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=5))
def test_every_accepted_label_is_read_back(labels):
    try:
        task = Classification(dict.fromkeys(labels, ""))
    except PromptError:
        assume(False)
    assert [task.read(label).label for label in task.classes] == list(range(len(task.classes)))


@given(st.one_of(st.none(), st.text()))
def test_any_reply_is_read_as_a_label_or_a_problem(reply):
    label, problem = Classification({"a": "", "b": ""}).read(reply)
    assert (label is None) != (problem is None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([False, "yes"], "label False is no text but bool; put it in quotes"),
        ([1, 2], "label 1 is no text but int; put it in quotes"),
        (["a"], "1 label(s) found, at least two are needed"),
        ([], "0 label(s) found"),
        (["a", " "], "label ' ' is empty"),
        (["Joy", "joy "], "labels 'Joy' and 'joy ' read the same"),
        (["joy", "'joy'"], "read the same"),
        (["x.", "x.."], "read the same"),
        (["a", "a"], "read the same"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels, message):
    with pytest.raises(PromptError) as caught:
        validate_labels(labels)
    assert message in str(caught.value)
