"""Which rows teach the LLM, and what each question is shown with."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.select import demos
from freeal.select.demos import (
    ROWS_A_SET,
    by_frequency,
    clustered,
    clusters,
    in_turn,
    nearest,
    neighbours_agree,
    quotas,
    shared,
)


def unit(n, d=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def choose(labels, k, total, eligible=None, embeddings=None, top=1.0):
    n = len(labels)
    confidence = np.random.default_rng(1).random(n)
    embeddings = unit(n) if embeddings is None else embeddings
    eligible = np.ones(n, bool) if eligible is None else eligible
    return clustered(np.asarray(labels), confidence, embeddings, eligible, total, top, k, 0)


@given(total=st.integers(1, 200), k=st.integers(1, 100))
def test_quotas_add_up_and_differ_by_one_at_most(total, k):
    shares = quotas(total, k)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_every_label_gets_its_quota():
    labels = np.arange(120) % 3
    assert np.bincount(labels[choose(labels, 3, 30)]).tolist() == [10, 10, 10]


def test_a_label_with_fewer_rows_than_clusters_keeps_them_all():
    labels = np.r_[np.zeros(40, int), [1, 1]]
    rows = choose(labels, 2, 20)
    assert {40, 41} <= set(rows.tolist())
    assert np.bincount(labels[rows]).tolist() == [10, 2]


def test_a_label_without_rows_gets_none_and_the_others_theirs():
    labels = np.zeros(40, int)
    rows = choose(labels, 3, 30)
    assert len(rows) == 10


def test_nothing_eligible_is_nothing_chosen():
    assert choose(np.arange(10) % 2, 2, 4, eligible=np.zeros(10, bool)).tolist() == []


@pytest.mark.parametrize("noise", [0.0, 1e-16])
def test_identical_embeddings_are_no_reason_to_fail(noise):
    embeddings = np.ones((40, 4)) + noise * np.random.default_rng(0).integers(0, 4, (40, 4))
    rows = choose(np.arange(40) % 2, 2, 10, embeddings=embeddings)
    assert 2 <= len(rows) <= 10
    assert set(rows % 2) == {0, 1}


def test_rows_are_unique_eligible_and_the_most_confident_first():
    labels, eligible = np.arange(100) % 2, np.arange(100) < 60
    confidence = np.linspace(0.5, 1.0, 100)
    rows = clustered(labels, confidence, unit(100), eligible, 10, 0.5, 2, 0)
    assert len(set(rows.tolist())) == len(rows) == 10
    assert eligible[rows].all()
    for c in range(2):
        assert (np.diff(confidence[rows[labels[rows] == c]]) <= 0).all()


def test_only_the_most_confident_share_may_demonstrate():
    confidence = np.linspace(0.0, 1.0, 100)
    rows = clustered(np.zeros(100, int), confidence, unit(100), np.ones(100, bool), 5, 0.1, 1, 0)
    assert rows.min() >= 90


def test_the_same_seed_chooses_the_same_rows():
    labels = np.arange(100) % 2
    assert choose(labels, 2, 20).tolist() == choose(labels, 2, 20).tolist()


def shown(labels, k, shots, forbidden=None, asked=3, balanced=True):
    labels = np.asarray(labels)
    forbidden = [[] for _ in range(asked)] if forbidden is None else forbidden
    return nearest(unit(asked, seed=1), unit(len(labels)), labels, forbidden, shots, k, balanced)


def test_six_labels_and_ten_shots_show_every_label():
    labels = np.arange(100) % 6
    for places in shown(labels, 6, 10):
        assert len(set(places)) == 10
        assert set(labels[places]) == set(range(6))


def test_balanced_shots_are_shared_out_evenly():
    labels = np.arange(60) % 2
    for places in shown(labels, 2, 10):
        assert np.bincount(labels[places]).tolist() == [5, 5]


def test_seventy_seven_labels_and_eight_shots_show_the_nearest_labels():
    labels = np.arange(154) % 77
    question, theirs = unit(3, seed=1), unit(154)
    for vector, places in zip(question, shown(labels, 77, 8), strict=True):
        assert len(set(labels[places])) == 8
        assert places[0] == (theirs @ vector).argmax()


def test_a_label_without_demonstrations_is_left_out():
    places = shown(np.zeros(20, int), 3, 9)[0]
    assert len(set(places)) == len(places) <= 9


def test_what_is_forbidden_is_never_shown():
    forbidden = [[0, 1], [2], list(range(20))]
    places = shown(np.arange(20) % 2, 2, 20, forbidden)
    assert all(not set(seen) & set(barred) for seen, barred in zip(places, forbidden, strict=True))
    assert places[2] == []


@pytest.mark.parametrize("balanced", [True, False])
def test_the_most_similar_is_shown_first(balanced):
    question, theirs = unit(3, seed=1), unit(40)
    for vector, places in zip(question, shown(np.arange(40) % 2, 2, 8, balanced=balanced), strict=True):
        assert (np.diff((theirs @ vector)[places]) <= 0).all()


def test_a_shared_set_takes_the_labels_in_turn():
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert labels[shared(labels, 5, 3)].tolist() == [0, 1, 2, 0, 1]
    assert shared(labels, 5, 3).tolist() == [0, 3, 5, 1, 4]


def test_a_shared_set_is_as_large_as_there_is_to_show():
    assert len(shared(np.array([0, 1]), 10, 2)) == 2
    assert len(shared(np.zeros(0, int), 10, 2)) == 0
    assert len(shared(np.arange(77), 8, 77)) == 8


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(demos).failed == 0


@given(
    shown=st.lists(st.lists(st.integers(0, 12), unique=True, max_size=6), min_size=1, max_size=20),
)
def test_by_frequency_keeps_what_is_shown_and_all_agree_on_the_order(shown):
    ordered = by_frequency(shown)
    assert [set(places) for places in ordered] == [set(places) for places in shown]
    counts = {place: sum(place in places for places in shown) for places in shown for place in places}
    for places in ordered:
        assert [counts[place] for place in places] == sorted((counts[place] for place in places), reverse=True)
        for other in ordered:
            common = [place for place in places if place in other]
            assert common == [place for place in other if place in places]


@given(n=st.integers(1, 200), sets=st.integers(1, 12))
def test_every_row_is_in_one_cluster_and_none_is_too_small_to_be_worth_it(n, sets):
    vectors = unit(n)
    of_row, centres = clusters(vectors, sets, seed=0)
    assert len(of_row) == n
    assert 1 <= len(centres) <= max(1, min(sets, n // ROWS_A_SET))
    assert set(of_row) <= set(range(len(centres)))
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0, atol=1e-5)
    again, _ = clusters(vectors, sets, seed=0)
    np.testing.assert_array_equal(of_row, again)


def test_clusters_are_rows_that_are_alike():
    groups = np.repeat(np.eye(8, dtype=np.float32)[:4], 50, axis=0) + 0.05 * unit(200)
    of_row, _ = clusters(groups / np.linalg.norm(groups, axis=1, keepdims=True), 4, seed=3)
    assert all(len(set(of_row[start : start + 50])) == 1 for start in range(0, 200, 50))
    assert len(set(of_row)) == 4


def test_one_text_many_times_is_one_cluster():
    of_row, centres = clusters(np.tile(unit(1), (100, 1)), 4, seed=0)
    assert len(centres) == 1
    assert not of_row.any()


def test_a_row_among_its_like_is_trusted_and_one_among_others_is_not():
    vectors = np.repeat(np.eye(8, dtype=np.float32)[:2], 30, axis=0) + 0.1 * unit(60)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.repeat([0, 1], 30)
    labels[[4, 40]] = [1, 0]
    labels[10] = -1
    agree = neighbours_agree(vectors, labels)
    assert np.flatnonzero(~agree).tolist() == [4, 10, 40]


@given(n=st.integers(0, 40), seed=st.integers(0, 20))
def test_neighbours_do_not_depend_on_the_order_of_labels_or_on_the_row_itself(n, seed):
    rng = np.random.default_rng(seed)
    vectors, labels = unit(n, seed=seed), rng.integers(-1, 3, n)
    agree = neighbours_agree(vectors, labels)
    assert not agree[labels < 0].any()
    renamed = np.where(labels >= 0, 2 - labels, -1)
    np.testing.assert_array_equal(neighbours_agree(vectors, renamed), agree)
    if (labels >= 0).sum() < 2:
        assert not agree.any()


@given(places=st.lists(st.integers(0, 19), unique=True))
def test_in_turn_keeps_all_and_the_order_within_a_label(places):
    labels = np.arange(20) % 3
    turned = in_turn(places, labels)
    assert sorted(turned) == sorted(places)
    for c in range(3):
        assert [p for p in turned if labels[p] == c] == [p for p in places if labels[p] == c]
    firsts = [labels[p] for p in turned[: len({labels[p] for p in places})]]
    assert len(set(firsts)) == len(firsts)


@given(cap=st.integers(1, 12), shots=st.integers(1, 6), balanced=st.booleans())
def test_no_demonstration_is_shown_more_often_than_the_cap_while_there_are_others(cap, shots, balanced):
    labels, asked = np.arange(12) % 2, 20
    questions, theirs = unit(asked, seed=1), unit(12)
    capped = nearest(questions, theirs, labels, [[]] * asked, shots, 2, balanced, cap=cap)
    free = nearest(questions, theirs, labels, [[]] * asked, shots, 2, balanced)
    used = np.zeros(12, int)
    for places, as_wanted in zip(capped, free, strict=True):
        assert len(places) == len(as_wanted) or balanced
        if (used < cap).sum() >= shots and not balanced:
            assert (used[places] < cap).all()
        used[places] += 1
    assert nearest(questions, theirs, labels, [[]] * asked, shots, 2, balanced, cap=asked) == free
