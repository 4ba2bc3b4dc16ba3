"""Candidates are words of the text, few, and found by rules that need no model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.tasks.proposals import MOST, proposed
from freeal.tasks.spans import split_words
from freeal.tasks.tokens import MOST_WORDS

SOME = ["Ann", "the", "of", "Bank", "U.S", ".", ",", "liver", "failure", "acute", "NATO", "and", "5-HT"]
TEXTS = st.lists(st.sampled_from(SOME), max_size=40)


def words(text, kind, marked=()):
    places = split_words(text)
    return [text[places[start].start : places[end - 1].end] for start, end in proposed(text, kind, marked)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Bank of England fell .", ["Bank", "Bank of England", "England"]),
        ("It rained all day .", []),
        ("U.S. troops met J. Smith , who left", ["U.S.", "J. Smith"]),
        ("US aid", ["US"]),
        ("a UK-based firm", ["UK", "UK-based"]),
        ("the US-Iran talks", ["US", "US-Iran", "Iran"]),
        ("pre-war Jean-Paul", ["Jean", "Jean-Paul", "Paul"]),
        ("", []),
    ],
)
def test_names_are_runs_of_words_with_a_capital(text, found):
    assert words(text, "names") == found


def test_long_runs_as_of_headlines_have_their_parts_as_candidates():
    found = words("SOCCER JAPAN GET LUCKY", "names")
    assert {"SOCCER JAPAN GET LUCKY", "JAPAN", "GET LUCKY"} <= set(found)


def test_phrases_lie_between_function_words_and_punctuation():
    found = words("acute liver failure with fever, after cocaine", "phrases")
    assert {"acute liver failure", "liver failure", "liver", "fever", "cocaine"} <= set(found)
    assert not any("with" in each or "," in each for each in found)


@pytest.mark.parametrize("text", ["cocaine-induced acute pain", "cocaine - induced acute pain"])
def test_phrases_end_at_hyphens_or_lie_across_them(text):
    hyphen = text.removeprefix("cocaine").removesuffix("induced acute pain")
    found = words(text, "phrases")
    assert {"cocaine", f"cocaine{hyphen}induced", f"cocaine{hyphen}induced acute", "acute pain", text} <= set(found)
    assert not any(each.startswith("-") or each.endswith("-") for each in found)


@pytest.mark.parametrize("text", ["Crohn's disease", "Crohn 's disease", "Crohn ' s disease", "Crohn’s disease"])
def test_phrases_lie_across_an_english_s(text):
    found = words(text, "phrases")
    assert {"Crohn", "disease", text} <= set(found)
    assert not {"s", "'s", "s disease"} & set(found)


def test_as_many_candidates_as_there_are_if_nobody_asks_for_few():
    text = " , ".join(["acute liver failure"] * 9)
    assert len(proposed(text, "phrases")) == MOST
    assert len(proposed(text, "phrases", most=None)) == 9 * 6


def test_numbers_alone_are_no_phrases():
    assert words("after 10 and 20 mg of it", "phrases") == ["20 mg", "mg"]


def test_what_somebody_marked_is_a_candidate_by_any_rule():
    assert proposed("it rained in rome today", "names", [(3, 4)]) == [(3, 4)]
    assert proposed("it rained", "names", [(1, 5)]) == [], "there are no such words"


@given(TEXTS, st.sampled_from(["names", "phrases"]))
def test_candidates_are_few_different_runs_of_words_in_order(parts, kind):
    text = " ".join(parts)
    found = proposed(text, kind)
    count = min(len(split_words(text)), MOST_WORDS)
    assert found == sorted(set(found))
    assert len(found) <= MOST
    assert all(0 <= start < end <= count for start, end in found)


@given(TEXTS)
def test_phrases_are_names_and_more(parts):
    names, phrases = proposed(" ".join(parts), "names"), proposed(" ".join(parts), "phrases")
    assert set(names) <= set(phrases)


@given(TEXTS, st.sampled_from(["names", "phrases"]), st.data())
def test_marks_are_never_left_out_for_others(parts, kind, data):
    count = len(split_words(" ".join(parts)))
    if count:
        start = data.draw(st.integers(0, count - 1))
        mark = (start, data.draw(st.integers(start + 1, count)))
        assert mark in proposed(" ".join(parts), kind, [mark])
