"""Demonstrations are written by the LLM, chosen from the pool, and never show a question its own answer."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal import demonstrations
from freeal.config import ColdStartConfig, DemosConfig
from freeal.demonstrations import Demonstrations, cleaned, writing_chat
from freeal.events import Note
from freeal.llm import Reply
from freeal.student.embedders import TfidfEmbedder
from freeal.tasks.classification import Classification
from freeal.types import Demonstration, Example, LoopState, Pool, StudentView

VECTORS = TfidfEmbedder(32)
MEANINGS = {"negative": "not liked", "positive": ""}
TEXTS = [f"film number {i} is {'a joy' if i % 2 else 'a bore'}" for i in range(40)]
POOL = Pool(tuple(Example(f"r{i}", text, {"year": str(i)}) for i, text in enumerate(TEXTS)))


def build(write=None, cold_start=None, meanings=MEANINGS, **settings):
    events = []
    ask = write or (lambda requests: pytest.fail("the LLM was asked"))
    demos = Demonstrations(
        DemosConfig(**settings),
        cold_start or ColdStartConfig(),
        Classification(meanings),
        ask,
        lambda: VECTORS,
        0,
        events.append,
    )
    return demos, events


def generated(total=10, **settings):
    return ColdStartConfig(kind="generated", total=total, **settings)


def chosen(demos, believed=None, pool=POOL):
    n = len(pool)
    posterior = np.tile([0.8, 0.2], (n, 1)).astype(np.float32)
    posterior[1::2] = posterior[1::2, ::-1]
    view = StudentView(posterior, VECTORS.encode(pool.texts))
    return demos.build(pool, posterior, np.ones(n, bool) if believed is None else believed, view)


def retrieved(demos, shown, pool=POOL):
    state = LoopState.start(len(pool), (len(demos.task.labels),), shown)
    return demos.retrieve(pool, np.arange(len(pool)), state)


# --- written by the LLM


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("I'm sorry, but I can't assist with that request.", False),
        ("Sorry, I am unable to write reviews", False),
        ("I cannot write that.", False),
        ("I’m not able to help", False),
        ("i'm sorry to say that this film is a bore", True),
        ("i can't remember a worse film", True),
        ("sorry is the word for it", True),
    ],
)
def test_a_refusal_is_no_demonstration(reply, kept):
    demos, _ = build(lambda requests: [Reply(reply) for _ in requests], generated(2))
    assert bool(demos.begin(POOL)) == kept


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("Some texts of the data set:\n- Who ruled?\n- Why?", "Who ruled?"),
        ("a fine film", "a fine film"),
        ("\n\n  a fine   film \nand more", "a fine film"),
        ("- a fine film", "a fine film"),
        ("12. a fine film", "a fine film"),
        ('"a fine film"', "a fine film"),
        ("1) 'a fine film'", "a fine film"),
        ("2001 was a fine film", "2001 was a fine film"),
        ("'tis a fine film", "'tis a fine film"),
        ("", ""),
        ('"', '"'),
        (" \n ", ""),
    ],
)
def test_what_was_written_is_cleaned(written, text):
    assert cleaned(written) == text


@given(st.text())
def test_a_cleaned_text_is_one_line_without_blank_edges(written):
    assert cleaned(written) == " ".join(cleaned(written).split())


def test_without_a_cold_start_nothing_is_written():
    demos, _ = build()
    assert demos.begin(POOL) == ()


def test_the_llm_writes_the_same_number_for_each_label():
    demos, events = build(lambda requests: [Reply(f"new text {i}") for i in range(len(requests))], generated())
    written = demos.begin(POOL)
    assert [demo.label for demo in written] == ["negative"] * 5 + ["positive"] * 5
    assert all(demo.row is None for demo in written)
    assert events == [Note("the LLM wrote 10 usable demonstrations of 10 asked for", "cold start")]


def test_no_text_of_the_pool_and_no_text_twice_becomes_a_demonstration():
    said = [TEXTS[0], TEXTS[1].upper(), "new", "NEW", "", "newer"]
    replies = [*map(Reply, said), Reply(problem="refused"), Reply("w " * 500), Reply(None), Reply("newest")]
    demos, events = build(lambda requests: replies, generated(), max_words=60)
    assert [demo.text for demo in demos.begin(POOL)] == ["new", "newer", "newest"]
    assert events[0].message.startswith("the LLM wrote 3 usable demonstrations of 10")


def test_every_request_differs_and_is_the_same_in_another_run():
    asked = []
    for _ in range(2):
        build(lambda requests: asked.append(requests) or [Reply("x")] * len(requests), generated())[0].begin(POOL)
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 10
    assert all(request.choices == () and request.temperature == 0.9 for request in asked[0])


def test_a_pool_of_one_text_is_enough_to_write_from():
    demos, _ = build(lambda requests: [Reply(f"new {r.seed}") for r in requests], generated(4, seen=5))
    assert len(demos.begin(Pool(POOL.examples[:1]))) == 4


def test_the_chat_names_the_label_its_meaning_and_what_it_must_not_be():
    system, user = writing_chat(["a joy\nto see"], Classification(MEANINGS).commission("negative"))
    assert system.role == "system"
    assert "- a joy to see" in user.content
    assert "clearly: negative (not liked)" in user.content
    assert "must not be: positive" in user.content


# --- chosen from the pool


def test_believed_rows_become_demonstrations_with_their_place_and_columns():
    demos, _ = build(total=10)
    for demo in chosen(demos):
        assert demo.text == TEXTS[demo.row]
        assert demo.fields == {"year": str(demo.row)}
        assert demo.label == ("positive" if demo.row % 2 else "negative")
        assert demo.probability == 0.8


def test_a_label_without_believed_rows_is_shown_with_its_surest_ones_and_that_is_told():
    demos, events = build(total=10, shots=4)
    found = chosen(demos, np.arange(40) % 2 == 0)
    assert [demo.label for demo in found].count("positive") == 2
    assert events == [
        Note(
            "no believed row for positive: the next round, if there is one, is shown its surest ones", "demonstrations"
        )
    ]


def test_a_label_that_no_row_has_is_not_said_to_be_shown():
    demos, events = build(total=10, shots=4)
    posterior = np.tile([0.8, 0.2], (40, 1))
    view = StudentView(posterior, VECTORS.encode(TEXTS))
    found = demos.build(POOL, posterior, np.ones(40, bool), view)
    assert {demo.label for demo in found} == {"negative"}
    assert events == [
        Note(
            "no believed row for positive: the next round, if there is one, is shown no example of it", "demonstrations"
        )
    ]


def test_rows_that_are_not_believed_teach_nobody_where_others_are():
    demos, _ = build(total=10)
    believed = np.arange(40) >= 20
    assert all(demo.row >= 20 for demo in chosen(demos, believed))


def test_long_texts_do_not_become_demonstrations():
    pool = Pool((Example("long", "w " * 100), *POOL.examples[1:]))
    demos, _ = build(total=40, max_words=60)
    assert 0 not in {demo.row for demo in chosen(demos, pool=pool)}


def test_kind_none_chooses_nothing():
    demos, _ = build(kind="none")
    assert chosen(demos) == ()


# --- shown


@pytest.mark.parametrize("how", ["shared", "clusters", "nearest"])
def test_no_row_is_shown_itself_or_its_own_text(how):
    twins = Pool((*POOL.examples, *(Example(f"twin {e.id}", e.text) for e in POOL.examples)))
    demos, _ = build(total=20, retrieve=how, shots=20)
    shown = retrieved(demos, chosen(demos), twins)
    assert all(demo.text != example.text for example, some in zip(twins.examples, shown, strict=True) for demo in some)
    assert all(len(some) >= 19 for some in shown)


def test_rows_of_a_cluster_share_a_set_that_shows_every_label_in_turn():
    texts = [f"{'film' if i < 30 else 'parcel'} number {i} is {'a joy' if i % 2 else 'a bore'}" for i in range(60)]
    pool = Pool(tuple(Example(f"r{i}", text) for i, text in enumerate(texts)))
    demos, _ = build(total=20, retrieve="clusters", shots=4, sets=2)
    shown = retrieved(demos, chosen(demos, pool=pool), pool)
    sets = {tuple(demo.row for demo in some) for some in shown if len(some) == 4}
    assert len(sets) == 2
    for some in sets:
        assert [row % 2 for row in some] in ([0, 1, 0, 1], [1, 0, 1, 0])
    for row, some in enumerate(shown):
        places = {demo.row for demo in some}
        assert row not in places
        assert any(places <= set(each) for each in sets)
    assert demos.retrieve(pool, np.arange(60), LoopState.start(60, (2,), chosen(demos, pool=pool))) == shown


def test_rows_among_others_demonstrate_nothing_where_neighbours_are_asked():
    texts = [f"a joy of a film, number {i}" for i in range(20)] + [f"the dull book {i} bores" for i in range(20)]
    pool = Pool(tuple(Example(f"r{i}", text) for i, text in enumerate(texts)))
    posterior = np.repeat([[0.1, 0.9], [0.9, 0.1]], 20, axis=0).astype(np.float32)
    posterior[[5, 30]] = posterior[[30, 5]]
    view = StudentView(posterior, VECTORS.encode(texts))
    rows = {}
    for trust in ("agreement", "neighbours"):
        demos, _ = build(total=40, top=1.0, trust=trust)
        rows[trust] = {demo.row for demo in demos.build(pool, posterior, np.ones(40, bool), view)}
    assert rows["agreement"] == set(range(40))
    assert rows["neighbours"] == set(range(40)) - {5, 30}


def test_a_shared_set_is_the_same_for_all_but_its_own_rows():
    demos, _ = build(total=20, retrieve="shared", shots=4)
    shown = retrieved(demos, chosen(demos))
    common = max(shown, key=len)
    assert len(common) == 4
    assert [demo.label for demo in common] == ["negative", "positive"] * 2
    for example, some in zip(POOL.examples, shown, strict=True):
        assert some == tuple(demo for demo in common if demo.text != example.text)


def test_the_nearest_come_first_and_both_labels_are_there():
    demos, _ = build(total=20, retrieve="nearest", order="similar", shots=4)
    pool_vectors = VECTORS.encode(TEXTS)
    for row, some in enumerate(retrieved(demos, chosen(demos))):
        similarity = [float(pool_vectors[row] @ pool_vectors[demo.row]) for demo in some]
        assert similarity == sorted(similarity, reverse=True)
        assert [demo.label for demo in some].count("positive") == 2


def students(demos, view):
    """A state whose student sees texts as `view` (n, d) has it."""
    shown = demos.build(POOL, view.proba, np.ones(40, bool), view)
    return replace(LoopState.start(40, (2,), shown), vectors=demos.kept(view))


@pytest.mark.parametrize("how", ["clusters", "nearest"])
def test_rows_are_compared_by_the_student_where_that_is_wanted_and_by_nobody_else(how):
    angle = np.linspace(0, 3, 40)
    seen = (7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)  # near in number is near
    demos, _ = build(total=10, retrieve=how, vectors="student", order="similar", shots=2, sets=1, top=1.0)
    demos.embedder = lambda: pytest.fail("the embedder was asked")
    state = students(demos, StudentView(np.tile([[0.8, 0.2], [0.2, 0.8]], (20, 1)), seen))
    np.testing.assert_allclose(np.linalg.norm(state.vectors, axis=1), 1.0, atol=1e-6)
    shown = demos.retrieve(POOL, np.arange(40), state)
    assert all(demo.row != row for row, some in enumerate(shown) for demo in some)
    if how == "nearest":
        for row, some in enumerate(shown):
            apart = {label: min(abs(d.row - row) for d in state.demos if d.label == label and d.row != row)
                     for label in MEANINGS}  # fmt: skip
            assert {demo.label: abs(demo.row - row) for demo in some} == apart


def test_the_embedder_compares_by_default_and_what_the_llm_wrote():
    view = StudentView(np.tile([[0.8, 0.2], [0.2, 0.8]], (20, 1)), np.zeros((40, 3), np.float32))
    by_default, _ = build(total=10, retrieve="nearest")
    assert students(by_default, view).vectors is None
    written = tuple(Demonstration(f"written {i} joy", "positive") for i in range(6))
    demos, _ = build(retrieve="nearest", vectors="student")
    shown = demos.retrieve(POOL, np.arange(40), replace(students(demos, view), demos=written))
    assert shown == retrieved(demos, written)


def test_written_demonstrations_are_shown_by_nearness_alone():
    written = [Demonstration(f"written {i} joy", "positive") for i in range(6)]
    demos, _ = build(retrieve="nearest", shots=4)
    assert all(len(some) == 4 for some in retrieved(demos, written))


def test_six_labels_and_ten_shots_show_every_label():
    meanings = dict.fromkeys("abcdef", "")
    some = [Demonstration(TEXTS[i], "abcdef"[i % 6], i) for i in range(30)]
    for how in ("nearest", "clusters", "shared"):
        demos, _ = build(meanings=meanings, retrieve=how, shots=10)
        for shown in retrieved(demos, some)[30:]:
            assert len(shown) == 10
            assert {demo.label for demo in shown} == set("abcdef")


def test_before_there_are_demonstrations_none_are_shown():
    demos, _ = build()
    assert retrieved(demos, ()) == [()] * 40


def test_the_docstrings_hold():
    assert doctest.testmod(demonstrations).failed == 0
