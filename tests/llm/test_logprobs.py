"""Candidates for tokens become probabilities of choices."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.llm.logprobs import Step, choice_logprobs

CHOICES = ("negative", "positive")


def first(*candidates):
    return [Step(candidates[0][0], candidates)]


def test_tokens_that_begin_the_same_choice_add_up_whatever_their_case():
    found = choice_logprobs(first(("pos", -0.2), (" Neg", -2.0), ("negative", -3.0), ("The", -5.0)), CHOICES)
    assert found == pytest.approx((math.log(math.exp(-2) + math.exp(-3)), -0.2))


def test_a_choice_that_was_not_seen_is_less_probable_than_anything_seen():
    assert choice_logprobs(first(("pos", -0.1), ("So", -4.0)), CHOICES) == (-5.0, -0.1)


@pytest.mark.parametrize(
    ("steps", "choices"),
    [
        (first(("The", -0.1), (" ", -1.0)), CHOICES),
        (first(("very", -0.1), ("nothing", -3.0)), ("very good", "very bad", "nothing")),
        ([], CHOICES),
        ([Step("pos", [])], CHOICES),
    ],
)
def test_nothing_is_said_of_choices_that_the_tokens_cannot_tell(steps, choices):
    assert choice_logprobs(steps, choices) is None


def test_crumbs_beside_a_reply_that_begins_otherwise_say_nothing():
    assert choice_logprobs(first(("Label", -0.01), ("positive", -5.1), ("negative", -6.0)), CHOICES) is None
    assert choice_logprobs(first(("The", -1.0), ("positive", -0.6), ("negative", -3.0)), CHOICES) is not None


def test_an_unlikely_common_beginning_does_no_harm():
    found = choice_logprobs(first(("pos", -0.1), ("p", -9.0), ("neg", -3.0)), ("pos", "pale", "neg"))
    assert found == (-0.1, -9.0, -3.0)


def test_a_shared_beginning_is_followed_until_the_choices_part():
    steps = [
        Step("very", [("very", -0.1), ("so", -3.0)]),
        Step(" good", [(" good", -0.2), (" bad", -1.8)]),
    ]
    assert choice_logprobs(steps, ("very good", "very bad", "so so")) == pytest.approx((-0.3, -1.9, -3.0))


def test_a_choice_that_begins_another_ends_where_the_reply_does():
    steps = [Step("very", [("very", -0.1)]), Step("<|end|>", [("<|end|>", -0.2), (" good", -1.7)])]
    assert choice_logprobs(steps, ("very", "very good")) == pytest.approx((-0.3, -1.8))


@given(st.lists(st.tuples(st.sampled_from(["neg", "pos", "p", "x", ""]), st.floats(-30, 0)), min_size=1, max_size=8))
def test_what_is_said_is_never_positive_by_more_than_rounding_and_never_nan(candidates):
    total = math.log(sum(math.exp(logprob) for _, logprob in candidates))
    shares = [(token, logprob - total) for token, logprob in candidates]
    found = choice_logprobs(first(*shares), CHOICES)
    assert found is None or all(not math.isnan(p) and p < 1e-9 for p in found)


def test_a_constraint_does_not_turn_other_words_into_a_choice():
    """As a server said it of a film: `po` would go on with `powerful`, but for the constraint."""
    top = first(("po", -0.22), ("negative", -2.16), ("ne", -3.2), ("positive", -4.29), ("neg", -4.57), ("p", -4.68))
    assert choice_logprobs(top, ("negative", "positive")) == (-2.16, -4.29)


def test_a_choice_that_begins_another_is_told_from_it_by_its_own_token():
    top = first(("sport", -0.5), ("sports", -1.5), ("s", -2.0), ("science", -3.0))
    assert choice_logprobs(top, ("sport", "sports news", "science")) == (-0.5, -1.5, -3.0)


def test_spellings_stand_beside_each_other():
    top = first(("Neg", -1.0), ("negative", -1.0), ("ne", -0.5), (" positive", -2.0))
    negative, positive = choice_logprobs(top, ("negative", "positive"))
    assert (math.exp(negative), positive) == (pytest.approx(2 * math.exp(-1)), -2.0)


def test_a_longer_token_that_ends_no_word_does_not_drop_the_one_the_choice_is_written_with():
    """A tokenizer may have `damage` and `dam`, and write `damaged` as dam + aged."""
    top = first(("dam", -0.2), ("damage", -3.0), ("ref", -2.5), ("del", -4.0))
    damaged, refund, delivery = choice_logprobs(top, ("damaged", "refund", "delivery"))
    assert damaged == pytest.approx(math.log(math.exp(-0.2) + math.exp(-3.0)))
    assert (refund, delivery) == (-2.5, -4.0)
    assert choice_logprobs(first(("sad", -0.05), ("joy", -3.1), ("sadn", -12.0)), ("joy", "sadness"))[1] > -0.06


def test_choices_that_were_not_seen_have_together_no_more_than_is_left():
    choices = ("person", "place", "city", "animal", "plant", "sport", "food", "event")
    found = choice_logprobs(first(("person", -0.7), ("place", -0.8), ("city", -3.2)), choices)
    seen = sum(math.exp(logprob) for logprob in found[:3])
    assert sum(math.exp(logprob) for logprob in found[3:]) <= 1.0 - seen + 1e-6


@pytest.mark.parametrize("lead", ["\n", " ", "**", '"', "`", "“", "\u0120", "\u2581"])
def test_what_stands_before_a_label_and_adds_nothing_is_passed_over(lead):
    first = Step(lead, [(lead, math.log(0.98)), ("The", math.log(0.02))])
    second = Step("positive", [("positive", math.log(0.7)), ("negative", math.log(0.3))])
    found = choice_logprobs([first, second], ["negative", "positive"])
    assert found == pytest.approx((math.log(0.98 * 0.3), math.log(0.98 * 0.7)))


def test_white_space_that_was_not_taken_makes_nothing_doubtful():
    first = Step("positive", [("positive", math.log(0.9)), ("\n", math.log(0.06)), ("negative", math.log(0.04))])
    assert choice_logprobs([first], ["negative", "positive"]) == pytest.approx((math.log(0.04), math.log(0.9)))


@pytest.mark.parametrize("space", ["\u0120", "\u2581"])
def test_a_space_as_a_tokenizer_names_it_is_a_space(space):
    steps = [
        Step(f"{space}very", [(f"{space}very", 0.0)]),
        Step(f"{space}good", [(f"{space}good", -0.3), (f"{space}bad", -1.4)]),
    ]
    assert choice_logprobs(steps, ["very good", "very bad"]) == pytest.approx((-0.3, -1.4))


def test_a_letter_that_tokenizers_use_for_a_space_may_be_one_of_a_label():
    steps = [Step("\u0120did", [("\u0120did", -0.3), ("qadim", -1.4)])]
    assert choice_logprobs(steps, ["\u0121did", "qadim"]) == pytest.approx((-0.3, -1.4))
