"""Which round is the result."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.select.calibration import Calibrator
from freeal.select.queries import reliability
from freeal.select.rounds import (
    MARGINS,
    NONE,
    SOME,
    Signs,
    agreement,
    best_round,
    by_chance,
    evenness,
    kappa,
    signs,
    telling,
    upheld_share,
)
from freeal.types import Annotations, Answers, LoopState

GOOD = Signs(kappa=0.6, evenness=0.95, certainty=0.8, answered=1.0, believed=0.6)
SHOWN = replace(GOOD, upheld=1.0)
BETTER = Signs(kappa=0.7, evenness=0.98, certainty=0.85, answered=1.0, believed=0.7)
SHARE = st.floats(0.0, 1.0)
SIGNS = st.builds(Signs, st.none() | SHARE, SHARE, SHARE, st.none() | SHARE, st.none() | SHARE, st.none() | SHARE)


def state(posterior, llm, student, asked_in=0, problems=None, next_round=1):
    n, k = np.shape(posterior)
    blank = LoopState.start(n, (k,))
    said = replace(
        blank.annotations, proba=np.array(llm, np.float32), asked_in=np.full(n, asked_in, np.int16),
        problems=np.array(problems or [None] * n, object),
    )  # fmt: skip
    return replace(
        blank, next_round=next_round, annotations=said, posterior=np.array(posterior, np.float32),
        student=np.array(student, np.float32), clean=np.arange(n) % 2 == 0,
    )  # fmt: skip


def test_the_last_round_is_the_result_unless_it_did_harm():
    assert best_round([GOOD]) == (0, None)
    assert best_round([GOOD, GOOD, GOOD]) == (2, None)
    assert best_round([GOOD, BETTER]) == (1, None)
    assert best_round([BETTER, GOOD]) == (1, None)  # a little worse is no harm


@pytest.mark.parametrize(
    ("later", "told"),
    [
        (replace(GOOD, evenness=0.1), "one label"),
        (replace(GOOD, kappa=0.0), "no more than by chance"),
        (replace(GOOD, kappa=0.4, answered=0.5, believed=0.2), "kappa 0.60 to 0.40, answered 1.00 to 0.50"),
        (replace(GOOD, kappa=0.4, believed=0.2, upheld=0.5), "believed 0.60 to 0.20, upheld 1.00 to 0.50"),
    ],
)
def test_a_round_that_did_harm_gives_way_to_the_one_before(later, told):
    chosen, why = best_round([SHOWN, later])
    assert chosen == 0
    assert told in why


@pytest.mark.parametrize("before", [GOOD, SHOWN])
@pytest.mark.parametrize("later", [GOOD, SHOWN, replace(GOOD, upheld=0.0)])
def test_drift_is_no_sign_where_a_round_was_shown_nothing_of_the_pool(before, later):
    worse = replace(later, kappa=0.4, believed=0.2)
    assert best_round([before, worse])[0] == (0 if before.upheld and later.upheld == 0.0 else 1)


@given(before=SIGNS, now=SIGNS)
def test_without_drift_a_round_gives_way_to_the_majority_of_the_other_five_signs(before, now):
    before, now = replace(before, evenness=1.0), replace(now, upheld=None, evenness=max(now.evenness, 0.5))
    pairs = {name: (getattr(before, name), getattr(now, name)) for name in MARGINS}
    known = {name: pair for name, pair in pairs.items() if None not in pair}
    fallen = {name for name, (was, is_now) in known.items() if was - is_now > MARGINS[name]}
    ceased = "kappa" in known and known["kappa"][0] >= SOME and known["kappa"][1] <= NONE
    went_back = best_round([before, now])[0] == 0
    assert went_back == (ceased or ("kappa" in fallen and 2 * len(fallen) > len(known)))


def test_sureness_alone_moves_nothing():
    unsure = replace(GOOD, certainty=0.3)
    assert best_round([replace(GOOD, certainty=1.0), unsure]) == (1, None)
    assert best_round([replace(GOOD, certainty=1.0, believed=1.0), replace(unsure, believed=0.1)]) == (1, None)


def test_shares_that_hardly_moved_have_not_collapsed():
    rare = replace(GOOD, evenness=0.26)
    assert best_round([rare, replace(rare, evenness=0.24)]) == (1, None)
    assert best_round([rare, replace(rare, evenness=0.1)])[0] == 0


def test_what_followed_a_harmful_round_is_compared_with_what_was_before_it():
    collapsed = replace(GOOD, kappa=0.0, evenness=0.0)
    assert best_round([GOOD, collapsed, collapsed])[0] == 0
    assert best_round([GOOD, collapsed, BETTER]) == (2, None)


def test_without_any_round_there_is_no_result():
    with pytest.raises(ValueError, match="no round"):
        best_round([])


@given(history=st.lists(SIGNS, min_size=1, max_size=5))
def test_the_result_is_one_of_the_rounds_and_said_why_if_not_the_last(history):
    chosen, why = best_round(history)
    assert 0 <= chosen < len(history)
    assert (why is None) == (chosen == len(history) - 1)


@given(before=SIGNS, now=SIGNS, name=st.sampled_from([each.name for each in fields(Signs)]), less=SHARE)
def test_a_worse_last_round_is_never_chosen_where_a_better_one_was_not(before, now, name, less):
    was = getattr(now, name)
    worse = replace(now, **{name: None if was is None else was * less})
    if best_round([before, now])[0] == 0:
        assert best_round([before, worse])[0] == 0


@given(seed=st.integers(0, 99), k=st.integers(2, 6))
def test_kappa_is_no_more_than_chance_for_labels_that_have_nothing_to_do_with_each_other(seed, k):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, k, 2000), rng.integers(0, k, 2000)
    assert abs(kappa(one, other, k)) < 0.1
    assert kappa(one, one, k) == pytest.approx(1.0)
    assert kappa(np.zeros(50, int), np.zeros(50, int), k) == 0.0 <= NONE


def told(right, n, k, seed):
    """Annotations of n rows with labels drawn at random, and a student that foretells this share of them."""
    rng = np.random.default_rng(seed)
    llm = rng.integers(0, k, n)
    student = np.where(rng.random(n) < right, llm, rng.integers(0, k, n))
    said = np.eye(k)[llm]
    return Annotations(said, said, np.zeros(n, np.int16), np.full(n, None, object)), np.eye(k)[student]


@given(seed=st.integers(0, 999), k=st.integers(2, 8), n=st.integers(20, 600))
def test_a_student_that_foretells_labels_is_no_alarm_and_so_are_rows_too_few_to_tell(seed, k, n):
    assert by_chance(*told(0.5, n, k, seed)) is None
    found, (said, student) = by_chance(*told(0.0, n, k, seed)), told(0.0, n, k, seed)
    assert found is None or found == agreement(said, student) <= NONE
    if n < 10 * k:
        assert found is None


@given(seed=st.integers(0, 99), k=st.integers(2, 8))
def test_labels_that_nothing_foretells_are_an_alarm_in_most_pools(seed, k):
    drawn = [by_chance(*told(0.0, 1000, k, 100 * seed + i)) for i in range(10)]
    assert sum(found is not None for found in drawn) >= 6


def test_without_a_student_or_answers_nobody_can_tell_chance():
    said, student = told(0.0, 1000, 2, 0)
    assert by_chance(said, student) is not None
    assert by_chance(said, np.full_like(student, 0.5)) is None
    assert by_chance(Annotations.none(1000, (2,)), student) is None
    assert by_chance(said, np.tile([0.9, 0.1], (1000, 1))) == 0.0
    alike = replace(said, proba=np.tile([0.9, 0.1], (1000, 1)))
    assert by_chance(alike, alike.proba) is None


@given(seed=st.integers(0, 99), k=st.integers(2, 6))
def test_evenness_is_one_for_even_shares_and_zero_for_one_label(seed, k):
    even = np.random.default_rng(seed).permutation(np.arange(10 * k) % k)
    assert evenness(even, k) == pytest.approx(1.0)
    assert evenness(np.zeros(9, int), k) == 0.0
    assert evenness(np.append(even, [-1, -1]), k) == pytest.approx(1.0)


def test_the_signs_are_those_of_the_rows_that_have_something_to_tell():
    said = [[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan], [0.3, 0.7]]
    read = [[0.8, 0.2], [0.1, 0.9], [0.6, 0.4], [0.7, 0.3]]
    found = signs(state(read, said, read, problems=[None, None, "empty reply", None]))
    assert found.kappa == pytest.approx(0.4)  # two of three agree, where chance gives 4 of 9
    assert found.answered == 0.75
    assert found.believed == pytest.approx(1 / 3)
    assert found.certainty == pytest.approx(0.75)
    assert found.evenness == pytest.approx(evenness(np.array([0, 1, 0, 0]), 2))


def test_demonstrations_drift_where_the_round_that_was_shown_them_takes_their_labels_back():
    final = {0: "a", 1: "b", 2: "a", 3: "b", 4: "a"}
    assert upheld_share({0: "a", 1: "b"}, final) == 1.0
    assert upheld_share({0: "a", 2: "b"}, final) == 0.5
    assert upheld_share({2: "b", 3: "a"}, final) == 0.0
    assert upheld_share({0: "a", 9: "a"}, final) == 0.5  # nobody has labelled row 9
    assert upheld_share({}, final) is None


def test_nothing_said_is_nothing_to_tell():
    nothing = [[np.nan, np.nan]] * 2
    found = signs(state([[0.5, 0.5]] * 2, nothing, [[0.5, 0.5]] * 2, asked_in=-1))
    assert (found.kappa, found.answered, found.believed) == (None, None, None)


def tagged(slots, n=300, right=0.0, words=8, seed=0):
    """State of texts of 8 words in `slots`, a third of them entities; the student foretells this share of the tags."""
    rng = np.random.default_rng(seed)
    llm = rng.choice(3, (n, words), p=[0.7, 0.2, 0.1])
    student = np.where(rng.random((n, words)) < right, llm, rng.choice(3, (n, words), p=[0.7, 0.2, 0.1]))
    heard, read = (np.tile(np.eye(1, 3, dtype=np.float32), (n, slots, 1)) for _ in range(2))
    heard[:, :words], read[:, :words] = (0.85 * np.eye(3)[each] + 0.05 for each in (llm, student))
    answers = Answers(np.arange(n), heard, np.zeros(n, bool), (None,) * n)
    blank = LoopState.start(n, (slots, 3))
    said = Calibrator("batch", "latest")(blank, answers)
    return replace(blank, next_round=1, annotations=said, posterior=said.proba, student=read)


@pytest.mark.parametrize("slots", [20, 128])
@pytest.mark.parametrize("right", [0.0, 0.5])
def test_slots_behind_the_last_word_are_neither_agreement_nor_labels(slots, right):
    words, more = tagged(8, right=right), tagged(slots, right=right)
    assert signs(more).kappa == pytest.approx(signs(words).kappa)
    assert signs(more).evenness == pytest.approx(signs(words).evenness)
    assert reliability(more) == pytest.approx(reliability(words))
    found = by_chance(more.annotations, more.student)
    assert (found is None) == (right > 0.0)
    assert found == by_chance(words.annotations, words.student)


def test_slots_behind_the_last_word_tell_nothing_of_texts_on_which_the_llm_abstained():
    known = tagged(20)
    silent = replace(
        known.annotations, proba=np.where(np.arange(300)[:, None, None] < 150, known.annotations.proba, np.nan)
    )
    assert telling(silent.proba, known.student).sum() == 300 * 8
    nothing = replace(known, annotations=Annotations.none(300, (20, 3)))
    assert (signs(nothing).kappa, signs(nothing).evenness) == (None, pytest.approx(signs(known).evenness))


def test_a_word_of_which_one_alone_is_certain_tells():
    sure, unsure, entity = [1.0, 0.0, 0.0], [0.9, 0.05, 0.05], [0.0, 1.0, 0.0]
    llm = np.array([[sure, unsure, entity, sure]])
    student = np.array([[unsure, sure, sure, sure]])
    assert telling(llm, student).tolist() == [[True, True, True, False]]


def test_texts_without_a_word_are_nothing_to_tell():
    none = np.tile(np.eye(1, 3), (60, 2, 1))
    said = Annotations(none, none, np.zeros(60, np.int16), np.full(60, None, object))
    assert (agreement(said, none), by_chance(said, none)) == (None, None)


@pytest.mark.parametrize("shape", [(6,), (6, 4)])
def test_of_classes_and_of_several_labels_a_row_all_tell(shape):
    sure = np.eye(2)[np.zeros(shape, int)]
    assert telling(sure, sure).all()
    assert telling(sure, sure).shape == shape
    if len(shape) == 1:
        assert telling(np.eye(3)[np.zeros(6, int)], np.eye(3)[np.zeros(6, int)]).all()
