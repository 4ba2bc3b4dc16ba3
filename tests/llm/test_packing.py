"""Prompts become few forward passes, and nothing is lost or mixed up."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.llm import packing
from freeal.llm.packing import branches, choice_tree, common_length, pack, packs, shared_length

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=6)
END = 9


def ending(labels):
    return [[*label, END] for label in labels]


LABELS = st.lists(TOKENS, min_size=2, max_size=6, unique_by=tuple).map(ending)


def before(tree, node):
    """Tokens from the prompt's end to `node`."""
    return [] if node == 0 else [*before(tree, tree.parents[node - 1]), tree.tokens[node - 1]]


@given(labels=LABELS)
def test_a_path_spells_the_shortest_beginning_no_other_label_has(labels):
    tree = choice_tree(labels)
    for label, path in zip(labels, tree.paths, strict=True):
        spelt = [token for _, token in path]
        others = [other for other in labels if other is not label]
        assert label[: len(spelt)] == spelt
        assert all(other[: len(spelt)] != spelt for other in others)
        assert len(spelt) == 1 or any(other[: len(spelt) - 1] == spelt[:-1] for other in others)
        assert all(before(tree, node) == spelt[:depth] for depth, (node, _) in enumerate(path))


@given(labels=LABELS)
def test_a_shared_beginning_is_in_the_tree_once(labels):
    tree = choice_tree(labels)
    spelt = [tuple(before(tree, node)) for node in range(1, len(tree) + 1)]
    assert len(set(spelt)) == len(spelt)
    assert list(tree.depths) == [len(tokens) for tokens in spelt]


@given(labels=LABELS)
def test_a_token_of_the_tree_sees_itself_and_what_it_hangs_from(labels):
    tree = choice_tree(labels)
    for node, seen in enumerate(tree.ancestors(), 1):
        assert [tree.tokens[j] for j in np.flatnonzero(seen)] == before(tree, node)


def test_labels_with_different_first_tokens_need_no_tree():
    tree = choice_tree(ending([[1], [2], [3, 4]]))
    assert len(tree) == 0
    assert tree.paths == (((0, 1),), ((0, 2),), ((0, 3),))


def test_the_beginning_of_another_label_is_told_by_its_end():
    tree = choice_tree(ending([[1], [1, 2]]))
    assert tree.paths == (((0, 1), (1, END)), ((0, 1), (1, 2)))


@pytest.mark.parametrize("labels", [[[1], [1, 2]], [[1, 2], [1, 2]], [[3], [1, 2, 3], [1, 2]]])
def test_labels_that_cannot_be_told_apart_raise(labels):
    with pytest.raises(ValueError, match="choices cannot be told apart"):
        choice_tree(labels)


def test_the_same_list_twice_cannot_be_told_apart():
    label = [1, END]
    with pytest.raises(ValueError, match="choices cannot be told apart"):
        choice_tree([label, label])


@given(a=TOKENS, b=TOKENS)
def test_the_common_length_is_that_of_the_longest_shared_beginning(a, b):
    n = common_length(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]
    assert n == common_length(b, a)


@given(group=st.lists(TOKENS, min_size=1, max_size=8).map(sorted))
def test_a_sorted_group_shares_what_all_begin_with_and_each_keeps_a_token(group):
    n = shared_length(group)
    assert all(tokens[:n] == group[0][:n] and len(tokens) > n for tokens in group)


@st.composite
def prompts(draw):
    """Sorted prompts with long shared beginnings."""
    stems = draw(st.lists(st.integers(0, 2), min_size=1, max_size=10))
    tails = draw(st.lists(TOKENS, min_size=len(stems), max_size=len(stems)))
    return sorted([7, *[stem] * 20, *tail] for stem, tail in zip(stems, tails, strict=True))


@given(some=prompts(), depth=st.integers(0, 1))
def test_branches_hold_every_prompt_once(some, depth):
    found = list(branches(some, depth))
    assert sorted(i for run, _ in found for i in run) == list(range(len(some)))
    for run, further in found:
        if further:
            assert shared_length([some[i] for i in run]) >= depth + packing.WORTH_SHARING


def test_a_long_shared_beginning_is_a_branch_and_a_single_prompt_is_not():
    some = [[1] * 20 + [2], [1] * 20 + [3], [5, 6]]
    assert list(branches(some, 0)) == [([0, 1], True), ([2], False)]


@given(lengths=st.lists(st.integers(1, 20), max_size=30), budget=st.integers(1, 40))
def test_packs_keep_the_order_and_the_budget(lengths, budget):
    found = list(packs(lengths, budget))
    assert [i for some in found for i in some] == list(range(len(lengths)))
    for some in found:
        assert len(some) == 1 or sum(lengths[i] for i in some) <= budget


@settings(max_examples=50)
@given(tails=st.lists(TOKENS, min_size=1, max_size=4), labels=LABELS, past=st.integers(0, 5))
def test_a_token_sees_the_cache_and_its_own_prompt_and_nothing_else(tails, labels, past):
    tree = choice_tree(labels)
    packed = pack(tails, tree, past)
    assert packed.mask[:, :past].all()
    start = 0
    for tail, places in zip(tails, packed.readout, strict=True):
        end = places[0]
        for place in range(start, end + 1):
            assert np.flatnonzero(packed.mask[place, past:]).tolist() == list(range(start, place + 1))
        for node, place in enumerate(places[1:], 1):
            seen = packed.tokens[packed.mask[place, past:]].tolist()
            assert seen == [*tail, *before(tree, node)]
            assert packed.positions[place] == past + len(tail) + len(before(tree, node)) - 1
        start = end + 1 + len(tree)
    assert start == len(packed.tokens)


def test_positions_go_on_behind_the_cache():
    packed = pack([[4, 5], [6]], choice_tree(ending([[1], [1, 2]])), 10)
    assert packed.tokens.tolist() == [4, 5, 1, 6, 1]
    assert packed.positions.tolist() == [10, 11, 12, 10, 11]
    assert packed.readout.tolist() == [[1, 2], [3, 4]]


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(packing).failed == 0
