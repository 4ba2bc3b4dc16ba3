"""One distribution a row."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.config import parse
from freeal.events import ignore
from freeal.parts import decisions
from freeal.select import fusion
from freeal.select.calibration import WIDEST, tempered
from freeal.types import Annotations

WEIGHTS = st.floats(0, 2)


def said(proba):
    proba = np.asarray(proba, np.float32)
    return Annotations(proba, proba, np.zeros(len(proba), np.int16), np.full(len(proba), None, object))


@settings(max_examples=40)
@given(seed=st.integers(0, 999), llm=WEIGHTS, student=WEIGHTS)
def test_the_pool_is_a_distribution_whatever_the_weights(seed, llm, student):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.full(4, 0.1), (2, 20))
    a[::5] = np.nan
    pooled = fusion.log_linear(a, b, llm, student)
    assert (pooled >= 0).all()
    np.testing.assert_allclose(pooled.sum(axis=1), 1.0, atol=1e-9)


def test_who_is_sure_overrules_who_is_not():
    pooled = fusion.log_linear(np.array([[0.99, 0.01], [0.45, 0.55]]), np.array([[0.4, 0.6], [0.98, 0.02]]), 0.5, 0.5)
    assert pooled.argmax(axis=1).tolist() == [0, 0]


def test_where_the_llm_abstains_the_student_speaks_alone():
    student = np.array([[0.3, 0.7]])
    np.testing.assert_allclose(fusion.log_linear(np.full((1, 2), np.nan), student, 0.9, 0.1), student)


def test_a_student_that_knows_nothing_changes_no_label():
    llm = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    pooled = fusion.log_linear(llm, np.full((20, 3), 1 / 3), 0.5, 0.5)
    np.testing.assert_array_equal(pooled.argmax(axis=1), llm.argmax(axis=1))


@settings(max_examples=40)
@given(seed=st.integers(0, 999), slots=st.sampled_from([None, 3]), sharp=st.floats(0.05, 3))
def test_a_student_is_no_surer_than_it_agrees_with_the_llm(seed, slots, sharp):
    rng = np.random.default_rng(seed)
    shape = (80,) if slots is None else (80, slots)
    llm, student = rng.dirichlet(np.full(3, 0.5), shape), rng.dirichlet(np.full(3, sharp), shape)
    llm[::9] = np.nan
    found = tempered(student, fusion.doubt(student, llm))
    for slot in [np.index_exp[:]] if slots is None else [np.index_exp[:, each] for each in range(slots)]:
        said, before, after = llm[slot], student[slot], found[slot]
        told = ~np.isnan(said[:, 0])
        agreed = (said[told].argmax(axis=1) == before[told].argmax(axis=1)).mean()
        sureness = before[told].max(axis=1).mean()
        wanted = min(sureness, max(agreed, tempered(before[told], np.exp(WIDEST[1])).max(axis=1).mean()))
        assert abs(after[told].max(axis=1).mean() - wanted) < 1e-6
        np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))


def test_a_handful_of_rows_tells_nothing_of_a_student():
    student = np.tile([0.9, 0.1], (12, 1))
    np.testing.assert_array_equal(fusion.doubt(student, 1 - student), [1.0])


def test_a_weak_student_that_is_too_sure_no_longer_overrules_the_llm():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 2000)
    right = rng.random((2, 2000)) < np.array([[0.9], [0.7]])
    llm, student = (np.eye(2)[np.where(r, gold, 1 - gold)] * 0.8 + 0.1 for r in right)
    student = tempered(student, 0.7)
    plain = fusion.log_linear(llm, student, 0.5, 0.5).argmax(axis=1)
    found = fusion.log_linear(llm, tempered(student, fusion.doubt(student, llm)), 0.5, 0.5).argmax(axis=1)
    assert (plain == gold).mean() < 0.75
    assert (found == gold).mean() > 0.88


@settings(max_examples=40)
@given(seed=st.integers(0, 999), slots=st.sampled_from([None, 3]))
def test_a_pool_is_sharpened_to_the_sureness_of_the_llm_and_no_label_changes(seed, slots):
    rng = np.random.default_rng(seed)
    shape = (60, 4) if slots is None else (60, slots, 4)
    llm, student = rng.dirichlet(np.full(4, 0.5), (2, *shape[:-1]))
    llm[::7] = np.nan
    pooled = fusion.log_linear(llm, student, 0.5, 0.5)
    found = fusion.sharpened(pooled, llm)
    np.testing.assert_array_equal(found.argmax(axis=-1), pooled.argmax(axis=-1))
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-9)
    told = ~np.isnan(llm[..., 0]) if slots is None else ~np.isnan(llm[:, 0, 0])
    for each in [np.index_exp[told]] if slots is None else [np.index_exp[told, slot] for slot in range(slots)]:
        sureness, before, after = (x[each].max(axis=-1).mean() for x in (llm, pooled, found))
        assert abs(after - max(sureness, before)) < 1e-6


def test_a_pool_that_is_surer_than_the_llm_stays_as_it_is():
    llm, pooled = np.tile([0.6, 0.4], (20, 1)), np.tile([0.9, 0.1], (20, 1))
    np.testing.assert_array_equal(fusion.sharpened(pooled, llm), pooled)
    nobody = np.full_like(llm, np.nan)
    np.testing.assert_array_equal(fusion.sharpened(llm, nobody), llm)


def test_rows_without_a_word_of_the_llm_are_not_sharpened_and_a_handful_tells_nothing():
    pooled, llm = np.tile([0.6, 0.4], (50, 1)), np.tile([0.9, 0.1], (50, 1))
    llm[25:] = np.nan
    found = fusion.sharpened(pooled, llm)
    np.testing.assert_allclose(found[:25], llm[:25], atol=1e-9)
    np.testing.assert_array_equal(found[25:], pooled[25:])
    llm[10:] = np.nan
    np.testing.assert_array_equal(fusion.sharpened(pooled, llm), pooled)


CONFIG = {"data": {"pool": "p.csv"}, "prompt": "p.md"}


def fused(asked_in, bound, sharpen, shares=False):
    """What `build` makes of a sure LLM and a student that contradicts it in a third of the rows, and is surer."""
    llm = np.tile([0.9, 0.1], (60, 1)).astype(np.float32)
    student = np.where((np.arange(60) % 3 == 0)[:, None], [0.05, 0.95], [0.95, 0.05])
    annotations = Annotations(llm, llm, np.broadcast_to(asked_in, 60).astype(np.int16), np.full(60, None, object))
    settings_ = parse(CONFIG, "test")
    return decisions.fuse(
        annotations, student, np.ones(60, bool), settings_, bound, False, sharpen, shares, None, ignore
    )


def test_a_run_tempers_its_student_and_sharpens_what_was_asked_again():
    third = np.arange(60) % 3 == 0
    assert (fused(1, "none", False).argmax(axis=1) == third).all()
    assert (fused(1, "rows", False).argmax(axis=1) == 0).all()
    modest, sharp = fused(1, "rows", False), fused(1, "rows", True)
    assert sharp.max(axis=1).mean() > modest.max(axis=1).mean()
    half = np.arange(60) % 2  # of doubtful rows alone nothing was made sober
    for asked_in in (0, half):
        np.testing.assert_array_equal(fused(asked_in, "rows", True), fused(asked_in, "rows", False))


def test_freeal_takes_the_student_on_believed_rows_and_where_the_llm_abstained():
    llm, student = said([[0.9, 0.1], [0.9, 0.1], [np.nan, np.nan]]), np.tile([0.2, 0.8], (3, 1))
    found = fusion.freeal(llm, student, np.array([True, False, False]))
    np.testing.assert_allclose(found, [[0.2, 0.8], [0.9, 0.1], [0.2, 0.8]], atol=1e-6)


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(fusion).failed == 0


# --- what is rare stays as frequent as the LLM has it


def words(seed, n=40, s=6, k=3):
    """LLM and student of words that are mostly O, and seldom agree on what is not; padding is certain."""
    rng = np.random.default_rng(seed)
    llm, student = (rng.dirichlet([6.0, *[0.4] * (k - 1)], (n, s)) for _ in range(2))
    for each in (llm, student):
        each[:, -1] = np.eye(k)[0]
    return llm, student


@given(st.integers(0, 2**32 - 1))
def test_pooled_words_have_each_class_as_often_as_the_llm(seed):
    llm, student = words(seed)
    pooled = fusion.log_linear(llm, student, 0.5, 0.5)
    assert pooled[:, :-1, 1:].sum() < llm[:, :-1, 1:].sum()
    found = fusion.at_shares(pooled, llm, fusion.share_bias(pooled, llm))
    np.testing.assert_allclose(found.mean(axis=(0, 1)), llm.mean(axis=(0, 1)), atol=1e-4)
    np.testing.assert_allclose(found[:, -1], pooled[:, -1], atol=1e-4)


def test_rows_that_the_llm_did_not_speak_of_count_for_nothing_and_stay_as_they_are():
    llm, student = words(0)
    pooled = fusion.log_linear(llm, student, 0.5, 0.5)
    bias = fusion.share_bias(pooled, llm)
    more = np.concatenate([llm, np.full_like(llm, np.nan)])
    both = fusion.log_linear(more, np.concatenate([student, student]), 0.5, 0.5)
    np.testing.assert_allclose(fusion.share_bias(both, more), bias)
    np.testing.assert_array_equal(fusion.at_shares(both, more, bias)[40:], both[40:])


@pytest.mark.parametrize(("bound", "shares"), [("none", True), ("rows", False), ("rows", True), ("words", True)])
def test_rows_of_a_test_are_read_as_the_same_rows_of_the_pool_are_and_tell_nothing(bound, shares):
    pool = words(1, n=200) if shares else tuple(np.random.default_rng(1).dirichlet([0.3] * 3, (2, 200)))
    say = fusion.say(*pool, (0.5, 0.5), bound)
    of_pool = fusion.pooled(*pool, say, shares)
    assert np.abs(of_pool - fusion.log_linear(*pool, 0.5, 0.5)).max() > 0.01
    few = slice(3, 7)
    of_test = fusion.pooled(pool[0][few], pool[1][few], say, shares, pool)
    np.testing.assert_allclose(of_test, of_pool[few])


def sentences(seed, right, n=400):
    """Three of twenty words are of three types; the LLM says so of four in five, a student of `right` of them.

    Each is as sure as it can be of what it says of the rest, and .9 sure of the type it gives.
    """
    rng = np.random.default_rng(seed)
    gold = np.where(rng.random((n, 20)) < 0.15, rng.integers(1, 4, (n, 20)), 0)
    told = []
    for share in (0.8, right):
        said = np.where((gold > 0) & (rng.random(gold.shape) > share), rng.integers(1, 4, gold.shape), gold)
        told.append(np.where(gold[..., None] > 0, np.eye(4)[said] * 0.88 + 0.03, np.eye(4)[0] * 0.96 + 0.01))
    return gold, *told


def evenly(llm, student, bound):
    return fusion.pooled(llm, student, fusion.say(llm, student, (0.5, 0.5), bound), True)


@pytest.mark.parametrize("seed", range(3))
def test_a_student_that_knows_no_type_has_no_say_in_types_though_it_agrees_on_nearly_all_words(seed):
    gold, llm, student = sentences(seed, right=0.0)
    assert (llm.argmax(axis=2) == student.argmax(axis=2)).mean() > 0.88
    assert fusion.foretold(student, llm, "words") == 0.0
    right = [(each.argmax(axis=2) == gold)[gold > 0].mean() for each in (evenly(llm, student, "none"), llm)]
    assert right[0] < right[1] - 0.1
    np.testing.assert_array_equal(evenly(llm, student, "words").argmax(axis=2), llm.argmax(axis=2))


@pytest.mark.parametrize("seed", range(3))
def test_a_student_that_knows_as_much_as_the_llm_keeps_its_say(seed):
    _, llm, student = sentences(seed, right=0.9)
    say = fusion.say(llm, student, (0.5, 0.5), "words")
    assert say.student == pytest.approx(0.5, abs=0.03)
    assert say.llm + say.student == pytest.approx(1.0)


def test_a_student_of_few_rows_that_is_sure_of_what_it_does_not_know_no_longer_overrules_the_llm():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 6, 30)  # fewer rows a label than sureness can be told by
    llm = np.eye(6)[np.where(rng.random(30) < 0.7, gold, rng.integers(0, 6, 30))] * 0.6 + 0.4 / 6
    student = np.eye(6)[rng.integers(0, 6, 30)] * 0.9 + 0.1 / 6
    free, bound = (fusion.say(llm, student, (0.5, 0.5), kind)(llm, student).argmax(axis=1) for kind in ("none", "rows"))
    assert (free == gold).mean() < 0.5
    np.testing.assert_array_equal(bound, llm.argmax(axis=1))


def test_of_several_labels_the_student_has_no_say_in_those_it_does_not_foretell():
    rng = np.random.default_rng(0)
    truth = rng.random((200, 2, 1)) < 0.5
    llm = np.where(truth, [0.1, 0.9], [0.9, 0.1])
    student = llm.copy()
    student[:, 1] = llm[rng.permutation(200), 1]
    say = fusion.say(llm, student, (0.5, 0.5), "rows")
    np.testing.assert_array_equal(say.student, [[0.5], [0.0]])
    np.testing.assert_allclose(say(llm, student)[:, 1], llm[:, 1])


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(["rows", "words"]))
def test_who_says_more_of_what_the_llm_says_foretells_more(seed, share, bound):
    llm, student = words(seed)
    nearer = share * llm + (1 - share) * student
    less, more, all_ = (fusion.foretold(each, llm, bound) for each in (student, nearer, llm))
    assert (less <= more + 1e-9).all()
    for each in (less, more):
        assert ((each >= 0.0) & (each <= 1.0)).all()
    np.testing.assert_array_equal(all_, np.ones_like(all_))


def test_rows_without_a_word_of_the_llm_foretell_nothing_and_one_type_for_all_leaves_nothing_to_foretell():
    llm, student = words(3)
    more = np.concatenate([llm, np.full_like(llm, np.nan)]), np.concatenate([student, student[::-1]])
    nothing, even = np.broadcast_to(np.eye(3)[0], (4, 5, 3)), np.full((4, 5, 3), 1 / 3)
    for bound in ("rows", "words"):
        np.testing.assert_array_equal(fusion.foretold(more[1], more[0], bound), fusion.foretold(student, llm, bound))
        for said in (nothing, nothing[..., ::-1], np.full((4, 5, 3), np.nan)):
            assert (fusion.foretold(even, said, bound) == 1.0).all()


def test_where_the_llm_is_to_have_no_say_it_gets_none():
    llm, student = words(2)
    for bound in ("rows", "words"):
        found = fusion.say(llm, student, (0.0, 1.0), bound)
        assert (found.llm == 0.0).all()
        assert (found.student == 1.0).all()


def test_what_was_asked_in_vain_and_words_that_are_not_read_tell_nothing_of_a_student():
    _, llm, student = sentences(0, right=0.9)
    known = fusion.foretold(student, llm, "words")
    unread, vain = student.copy(), llm.copy()
    unread[:, 15:] = np.eye(4)[0]
    vain[:, 15:] = 0.25
    short = fusion.foretold(student[:, :15], llm[:, :15], "words")
    np.testing.assert_allclose(fusion.foretold(unread, llm, "words"), short)
    np.testing.assert_allclose(fusion.foretold(student, vain, "words"), short)
    assert short == pytest.approx(known, abs=0.05)
    labels = np.where(np.random.default_rng(0).random((200, 2, 1)) < 0.3, [0.1, 0.9], [0.9, 0.1])
    half = labels.copy()
    half[::2, 1] = 0.5
    np.testing.assert_array_equal(fusion.foretold(labels, half, "rows"), [[1.0], [1.0]])


@given(WEIGHTS, WEIGHTS, st.integers(0, 99))
def test_what_the_student_loses_the_llm_gains(llm, student, seed):
    said, its = words(seed)
    found = fusion.say(said, its, (llm, student), "words")
    assert found.llm + found.student == pytest.approx(llm + student)
    assert found.student <= student


def told_of(llm, student, bound):
    """The notes of a fusion."""
    told = []
    llm = llm.astype(np.float32)
    annotations = Annotations(llm, llm, np.zeros(len(llm), np.int16), np.full(len(llm), None, object))
    decisions.fuse(
        annotations,
        student,
        np.ones(len(llm), bool),
        parse(CONFIG, "test"),
        bound,
        False,
        False,
        False,
        None,
        told.append,
    )
    return [note.message for note in told]


def test_a_student_that_has_less_to_say_is_told_of():
    llm, student = words(1)
    weighs = "where both speak, its word weighs 0.00 in place of 0.50"
    assert told_of(llm, student, "words") == [f"it foretells little of what the LLM says: {weighs}"]
    assert told_of(llm, llm, "words") == []
    labels = np.where(np.random.default_rng(0).random((200, 2, 1)) < 0.3, [0.1, 0.9], [0.9, 0.1])
    other = np.stack([labels[:, 0], np.roll(labels[:, 1], 1, axis=0)], axis=1)
    assert told_of(labels, other, "rows") == [f"it foretells little of what the LLM says for 1 of 2 labels: {weighs}"]


def test_where_no_word_is_in_doubt_nothing_is_added():
    llm = np.broadcast_to(np.eye(3)[0], (4, 5, 3))
    np.testing.assert_array_equal(fusion.share_bias(llm, llm), np.zeros(3))
    nobody = np.full((4, 5, 3), np.nan)
    np.testing.assert_array_equal(fusion.share_bias(llm, nobody), np.zeros(3))


@pytest.mark.parametrize(
    ("changed", "keeps"),
    [({"reading": "names"}, True), ({}, False), ({"reading": "names", "fusion": {"shares": False}}, False)],
)
def test_only_judged_candidates_keep_their_shares(changed, keeps):
    assert parse(CONFIG | changed, "test").keeps_shares is keeps
    llm, student = (each.astype(np.float32) for each in words(1))
    annotations = Annotations(llm, llm, np.zeros(40, np.int16), np.full(40, None, object))
    settings_ = parse(CONFIG | changed, "test")
    found = decisions.fuse(
        annotations, student, np.ones(40, bool), settings_, "none", True, False, settings_.keeps_shares, None, ignore
    )
    apart = abs(found.mean(axis=(0, 1)) - llm.mean(axis=(0, 1))).max()
    assert apart < 1e-3 if keeps else apart > 1e-2


@pytest.mark.parametrize("bound", ["none", "words"])
def test_words_that_the_student_does_not_read_are_the_llms_and_cost_it_nothing_elsewhere(bound):
    _, llm, student = sentences(0, right=0.97)
    unread = student.copy()
    unread[:, 15:] = np.eye(4)[0]
    whole, part = (fusion.say(llm, each, (0.5, 0.5), bound, words=True) for each in (student, unread))
    assert part.student == pytest.approx(float(whole.student), abs=0.02)
    found = part(llm, unread)
    np.testing.assert_array_equal(found[:, 15:], llm[:, 15:])
    np.testing.assert_allclose(found[:, :15], whole(llm, student)[:, :15], atol=0.01)
    np.testing.assert_array_equal(fusion.pooled(llm, unread, part, True)[:, 15:], llm[:, 15:])
    np.testing.assert_allclose(
        fusion.pooled(llm, unread, part, True)[:, :15], fusion.pooled(llm[:, :15], student[:, :15], part, True)
    )
    silent = np.full_like(llm, np.nan)
    np.testing.assert_allclose(part(silent, unread), unread, atol=1e-5)


@pytest.mark.parametrize("bound", ["rows", "words"])
@pytest.mark.parametrize("sureness", [0.95, 0.999, 0.99999])
def test_a_student_is_not_blamed_for_being_surer_than_a_mere_word_that_it_foretells(bound, sureness):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (40, 20))
    word, sure = (np.where(np.eye(3)[labels] > 0, most, (1 - most) / 2) for most in (0.9, sureness))
    word, sure = (word, sure) if bound == "words" else (word.reshape(-1, 3), sure.reshape(-1, 3))
    assert fusion.say(word, sure, (0.5, 0.5), bound).student == pytest.approx(0.5)
    wrong = np.roll(sure, 1, axis=-1)
    assert fusion.say(word, wrong, (0.5, 0.5), bound).student == 0.0


def test_of_a_label_without_an_answer_the_students_word_is_taken_and_its_sureness_told_by_the_others():
    truth = np.random.default_rng(0).random((400, 2)) < 0.4
    student = np.where(truth[..., None], [0.05, 0.95], [0.95, 0.05])
    llm = student.copy()
    llm[::2, 1] = 0.5
    say = fusion.say(llm, student, (0.5, 0.5), "rows")
    assert say.temperatures is None
    np.testing.assert_allclose(say(llm, student), student, atol=1e-5)
    np.testing.assert_allclose(fusion.sharpened(student, llm), student, atol=1e-5)


def test_words_that_were_left_out_of_the_question_do_not_count_among_the_shares():
    llm, student = words(4)
    short = llm.copy()
    short[:, 3:] = 1 / 3
    whole, part = (
        fusion.log_linear(said, its, 0.5, 0.5) for said, its in ((short, student), (llm[:, :3], student[:, :3]))
    )
    np.testing.assert_allclose(fusion.share_bias(whole, short), fusion.share_bias(part, llm[:, :3]))


def test_freeals_own_fusion_takes_the_students_word_of_a_label_that_the_llm_left_open():
    llm, student = np.array([[[0.1, 0.9], [0.5, 0.5]]]), np.array([[[0.8, 0.2], [0.3, 0.7]]])
    found = fusion.freeal(said(llm), student, np.array([False]))
    np.testing.assert_allclose(found, [[[0.1, 0.9], [0.3, 0.7]]], atol=1e-6)
