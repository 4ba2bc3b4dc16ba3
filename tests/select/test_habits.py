"""An LLM that does not look at the texts is noticed by its answers alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.select.habits import LEAST, Named, alarms, standing, undecided


def answers(*named):
    return [Named(tuple(words)) for words in named]


def test_an_llm_that_names_nothing_is_told():
    (told,) = alarms(answers(*[()] * 49, ["ann"]))
    assert told.startswith("the LLM names no entity in 49 of 50 answers: ")
    assert alarms(answers(*[()] * 40, *[["ann"]] * 10)) == []


def test_an_llm_that_names_always_one_is_told():
    (told,) = alarms(answers(*[["ann"], ["bob"]] * 19, ["ann", "bob"], []))
    assert told.startswith("the LLM names exactly one entity in 38 of 40 answers: ")


def test_an_llm_that_names_always_the_same_is_told():
    replies = [["ann", name] for name in ("bob", "rome", "in")] * 10
    (told,) = alarms(answers(*replies))
    assert told.startswith("the LLM names 'ann' in 30 of the 30 answers that name anything: ")
    assert alarms(answers(*replies, *[()] * 30)) != []


def test_an_llm_that_copies_demonstrations_is_told():
    copies, own = [Named(("ann", "zürich"), copied=True)] * 4, answers(*[["bob", "ann"], ["rome"], []] * 12)
    (told,) = alarms(copies + own)
    assert told.startswith("the LLM copies entities of the demonstrations into 4 of 40 answers")
    assert alarms(copies[:3] + own) == []


@pytest.mark.parametrize(("named", "said"), [([], "no"), (["yes"] * 3, "yes")])
def test_an_llm_that_says_the_same_of_every_label_is_told(named, said):
    (told,) = alarms(answers(*[named] * 40), labels=3)
    assert told.startswith(f"the LLM says {said} to every label in 40 of 40 answers: ")
    assert alarms(answers(*[["yes"]] * 40), labels=3) == []


@given(st.lists(st.sampled_from([(), ("ann",), ("ann", "bob")]), max_size=LEAST - 1), st.sampled_from([None, 2]))
def test_nothing_is_said_of_few_answers(named, labels):
    assert alarms(answers(*named), labels) == []


@given(st.lists(st.sampled_from([(), ("ann",), ("bob", "rome")]), min_size=LEAST, max_size=60))
def test_more_of_a_habit_never_ends_an_alarm(named):
    before = {told.partition(" in ")[0] for told in alarms(answers(*named))}
    for habit, kind in (((), "the LLM names no entity"), (("cy",), "the LLM names exactly one entity")):
        after = {told.partition(" in ")[0] for told in alarms(answers(*named, *[habit] * 5))}
        assert (kind in after) >= (kind in before)


@given(st.permutations(range(40)))
def test_the_order_of_the_answers_does_not_matter(order):
    said = answers(*[["ann", "bob"], ["ann", "rome"]] * 20)
    assert alarms([said[place] for place in order]) == alarms(said)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_what_tells_enough_for_more_tells_enough_for_less(one, other):
    proba = np.repeat([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.4, 0.1, 0.5]], 20, axis=0)
    assert len(undecided(proba, min(one, other))) <= len(undecided(proba, max(one, other)))
    assert undecided(proba[:5], 1.0) == [], "too few to tell"


def test_alarms_stand_while_the_answers_do():
    told = [["names nothing"], [], ["copies"]]
    assert standing(told, np.repeat([1, 2], 40)) == ["in round 2 copies"]
    assert standing(told, np.repeat([0, 1, 2], [LEAST, 40, LEAST - 1])) == ["in round 0 names nothing"]
    assert standing(told, np.full(40, -1)) == []
