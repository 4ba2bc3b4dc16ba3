"""Texts that the LLM writes itself, for demonstrations: their entities are those it marks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.tasks.classification import Classification
from freeal.tasks.multilabel import Multilabel
from freeal.tasks.tokens import Tokens

TASK = Tokens({"PER": "a person", "LOC": ""})


@pytest.mark.parametrize(
    ("written", "group", "text", "label"),
    [
        ("[Ann Lee](PER) slept .", "PER", "Ann Lee slept .", "PER: Ann Lee"),
        ("[Ann](PER) met [Bob](per) in [Rome](LOC).", "LOC", "Ann met Bob in Rome.", "PER: Ann | Bob\nLOC: Rome"),
        ("In [ Rome ](LOC), [Ann] (PER) slept", "PER", "In Rome, Ann slept", "PER: Ann\nLOC: Rome"),
        ("It rained (again).", "none", "It rained (again).", "none"),
    ],
)
def test_marked_entities_are_taken_as_they_stand(written, group, text, label):
    assert TASK.composed(written, group) == (text, label)


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("", "none"),
        ("Ann slept .", "PER"),
        ("[Ann](PER) slept .", "LOC"),
        ("[Ann](PER) slept .", "none"),
        ("[Ann](animal) and [Bob](PER)", "PER"),
        ("[Ann and [Bob](PER)", "PER"),
        ("[ ](PER) slept", "PER"),
        ("[Ann], (PER), slept", "PER"),
    ],
)
def test_what_is_not_as_it_was_asked_for_is_no_use(written, group):
    assert TASK.composed(written, group) is None


@given(st.text("ab []()PERLOC|", max_size=60), st.sampled_from(TASK.groups))
def test_every_entity_of_a_composed_text_stands_in_it(written, group):
    made = TASK.composed(" ".join(written.split()), group)
    if made is not None:
        text, label = made
        said = TASK.heard(label, text)
        assert said.proba is not None
        assert not said.dropped
        assert "[" not in text


@pytest.mark.parametrize("task", [Classification({"a": "", "b": ""}), Multilabel({"a": "", "b": ""})])
def test_a_text_of_one_label_has_that_label(task):
    for group in task.groups:
        assert task.composed("a text", group) == ("a text", group)
        assert task.composed("", group) is None
        assert all(name in task.commission(group) for name in task.labels)


def test_what_is_asked_for_names_every_type_and_the_one_that_must_occur():
    assert "at least one PER (a person)" in TASK.commission("PER")
    assert "nothing of these kinds is named: PER (a person); LOC." in TASK.commission("none")
