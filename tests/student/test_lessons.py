"""Which row is in which fold."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freeal.config import LinearConfig
from freeal.select.rounds import kappa
from freeal.student.crossfitted import CrossFitted
from freeal.student.embedders import TfidfEmbedder
from freeal.student.lessons import spread
from freeal.student.linear import LinearStudent
from freeal.types import Inputs

LABELS = ("bad", "good")
KINDS = st.lists(st.integers(0, 4), min_size=1, max_size=60)
FOLDS, SEED = st.integers(2, 7), st.integers(0, 99)


def new(fold=0):
    return LinearStudent(LinearConfig(), LABELS, fold, TfidfEmbedder(64))


@given(kinds=KINDS, folds=FOLDS, seed=SEED)
def test_distinct_texts_are_dealt_in_turn(kinds, folds, seed):
    order = np.lexsort((np.random.default_rng(seed).permutation(len(kinds)), kinds))
    in_turn = np.empty(len(kinds), np.int64)
    in_turn[order] = np.arange(len(kinds)) % min(folds, len(kinds))
    found = spread(np.array(kinds), [f"text {i}" for i in range(len(kinds))], folds, seed)
    assert (found.dtype, found.tobytes()) == (in_turn.dtype, in_turn.tobytes())


@given(kinds=KINDS, folds=FOLDS, seed=SEED, data=st.data())
def test_all_rows_of_a_text_are_in_one_fold_and_no_fold_is_empty(kinds, folds, seed, data):
    texts = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(kinds), max_size=len(kinds)))
    found = spread(np.array(kinds), texts, folds, seed)
    assert len(set(zip(texts, found.tolist(), strict=True))) == len(set(texts))
    assert set(found.tolist()) == set(range(min(folds, len(set(texts)))))


def test_case_and_spaces_make_no_other_text():
    texts = ["A  good film", "a good\tFILM ", "Stra\u00dfe", "STRASSE", "caf\u00e9", "cafe\u0301"]
    found = spread(np.zeros(6, int), texts, 3, 0)
    assert sorted(found[::2]) == [0, 1, 2]
    assert found[::2].tolist() == found[1::2].tolist()


@given(seed=SEED)
def test_repeated_texts_leave_folds_and_kinds_about_even(seed):
    rng = np.random.default_rng(seed)
    of_text = rng.integers(0, 3, 200)
    rows = np.repeat(np.arange(200), rng.integers(1, 6, 200))
    found = spread(of_text[rows], [f"text {row}" for row in rows], 4, seed)
    for kind in range(3):
        assert np.ptp(np.bincount(found[of_text[rows] == kind], minlength=4)) <= 5
    assert np.ptp(np.bincount(found)) <= 15


def test_a_judge_has_not_learned_the_label_of_a_rows_twin():
    rng = np.random.default_rng(0)
    once = [" ".join(rng.choice([f"word{i}" for i in range(300)], 6)) for _ in range(100)]
    labels = np.tile(rng.integers(0, 2, 100), 2)
    inputs, targets = Inputs(once + [text.upper() for text in once]), np.eye(2)[labels]
    for judge in (new(), CrossFitted(new, 2, 0, (2,))):
        said = judge.fit(inputs, targets).out_of_fold_.argmax(axis=1)
        assert kappa(labels, said, 2) < 0.1
        assert judge.losses_.mean() > np.log(2) - 0.05


def test_of_one_text_alone_nothing_is_said():
    judge = new().fit(Inputs(["alone"] * 4), np.eye(2)[[0, 1, 0, 0]])
    np.testing.assert_array_equal(judge.out_of_fold_, np.full((4, 2), 0.5))
