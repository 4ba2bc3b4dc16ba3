"""Replies are kept, found again and counted."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freeal.errors import RunError
from freeal.ledger import SCHEMA, Entry, Ledger, Unread, Usage, key_of, question_of
from freeal.llm import Message, Reply, Request

LLM = {"kind": "scripted", "seed": 0}
NASTY = 'a "quote", a\nline, a tab\t, 文, \u2028 and \x85'


def ask(text="a joy", uid="r1", **more):
    return Request((Message("user", text),), ("negative", "positive"), uid=uid, **more)


def key(request, llm=LLM):
    return key_of(llm, question_of(request))


def entry(request, work="round 0"):
    return Entry.of(key(request), work, request)


def keep(ledger, *replies, work="round 0", seconds=1.0):
    requests = [ask(f"text {i}", f"r{i}") for i in range(len(replies))]
    ledger.keep([(entry(q, work), reply) for q, reply in zip(requests, replies, strict=True)], seconds)
    return [key(request) for request in requests]


@pytest.mark.parametrize(
    "reply",
    [
        Reply("positive", (-0.1, -2.3025850929940455), 12, 1),
        Reply(NASTY, None, 3, 9),
        Reply(None, (0.0, float("-inf")), 3, 1),
        Reply(problem="refused"),
    ],
)
def test_a_reply_is_the_same_after_reopening(tmp_path, reply):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (kept,) = keep(ledger, reply)
        assert ledger.find(kept, "round 0") == reply
    with Ledger(tmp_path / "ledger.sqlite") as again:
        assert again.find(kept, "round 1") == reply


def test_what_was_never_asked_is_not_found(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.find(key(ask()), "round 0") is None
        assert ledger.answers_to(question_of(ask())) is None


def test_attempts_after_the_first_are_counted_by_work_and_not_those_of_an_earlier_run(tmp_path):
    asked = ask()
    with Ledger(tmp_path / "earlier.sqlite") as ledger:
        for _ in range(3):
            ledger.sent(entry(asked)).result()
            ledger.failed(key(asked), False, 0.0)
        ledger.received([(entry(asked), "positive")], 1.0).result()
        ledger.sent(entry(ask("once"), "round 1")).result()
        assert (ledger.retries(), ledger.retries(["round 0"]), ledger.retries(["round 1"])) == (2, 2, 0)
    with Ledger(tmp_path / "ledger.sqlite", [tmp_path / "earlier.sqlite"]) as later:
        assert later.find(key(asked), "round 0") is not None
        later.settle()
        assert later.retries() == 0


def test_whatever_changes_a_reply_changes_its_key():
    other_words = (Message("user", "a joy"), Message("assistant", "positive"), Message("user", "a joy"))
    others = [ask("a bore"), ask(seed=1), ask(temperature=0.5), ask(max_tokens=3), Request(other_words)]
    others += [ask(schema={"type": "object"}), ask(schema={"type": "array"})]
    keys = {key(request) for request in (ask(), *others)} | {key(ask(), {"kind": "scripted", "seed": 1})}
    assert len(keys) == 9


def test_a_request_comes_back_with_its_schema(tmp_path):
    asked = ask(schema={"type": "object", "properties": {"entities": {"type": "array"}}})
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.sent(entry(asked)).result()
    with Ledger(tmp_path / "ledger.sqlite") as again:
        ((_, _, found),) = again.unanswered()
        assert found == asked


def test_the_id_of_a_row_changes_its_key_only_where_replies_depend_on_it():
    one, other = ask(uid="r1"), ask(uid="r2")
    assert question_of(one) == question_of(other)
    assert question_of(one, by_uid=True) != question_of(other, by_uid=True)


@given(text=st.text())
def test_any_text_has_a_key(text):
    assert len(key(ask(text))) == 40


def test_the_first_reply_to_a_question_stays(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (kept,) = keep(ledger, Reply("positive"))
        keep(ledger, Reply("negative"))
        assert ledger.find(kept, "round 0").text == "positive"
        assert ledger.usage().calls == 1


def test_usage_adds_up_by_work(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        keep(ledger, Reply("a", None, 10, 1), Reply("b", None, 20, 2), seconds=3.0)
        ledger.keep([(entry(ask(), "test"), Reply("c", None, 5, 1))], 0.5)
        assert ledger.usage(["round 0"]) == Usage(2, 0, 30, None, 3, 3.0)
        assert ledger.usage() == Usage(3, 0, 35, None, 4, 3.5)
        assert ledger.usage([]) == ledger.usage(["round 7"]) == Usage()


def test_replies_of_an_earlier_run_are_copied_and_are_no_calls(tmp_path):
    with Ledger(tmp_path / "old.sqlite") as old:
        (kept,) = keep(old, Reply("positive", None, 10, 1))
    with Ledger(tmp_path / "new.sqlite", [tmp_path / "old.sqlite"]) as new:
        assert new.find(kept, "round 0").text == "positive"
        assert (new.usage().calls, new.usage().reused) == (0, 1)
    (tmp_path / "old.sqlite").unlink()
    with Ledger(tmp_path / "new.sqlite") as alone:
        assert alone.find(kept, "round 0").text == "positive"


def test_tokens_are_told_by_work_and_member_also_of_what_an_earlier_run_paid(tmp_path):
    with Ledger(tmp_path / "old.sqlite") as old:
        (kept,) = keep(old, Reply("positive", None, 10, 1), work="round 0 | other")
    with Ledger(tmp_path / "new.sqlite", [tmp_path / "old.sqlite"]) as new:
        assert new.find(kept, "round 0 | other")
        new.keep([(entry(ask("more"), "round 0 | other"), Reply("negative", None, 20, 2))], 0.0)
        new.keep([(entry(ask("first"), "round 0"), Reply("negative", None, 5, 1))], 0.0)
        new.keep([(entry(ask("later"), "test"), Reply("negative", None, 7, 1))], 0.0)
        assert new.tokens(["round 0"]) == {"round 0": (5, 1), "round 0 | other": (30, 3)}


def test_the_ledger_of_an_earlier_run_is_not_written_to(tmp_path):
    with Ledger(tmp_path / "old.sqlite"):
        pass
    with Ledger(tmp_path / "new.sqlite", [tmp_path / "old.sqlite"]) as new:
        keep(new, Reply("positive"))
    with Ledger(tmp_path / "old.sqlite") as old:
        assert old.usage() == Usage()


def test_a_question_is_answered_whatever_llm_was_asked(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        keep(ledger, Reply("positive"))
        assert ledger.answers_to(question_of(ask("text 0"))).text == "positive"


def test_a_chunk_that_is_interrupted_is_not_kept_in_part(tmp_path):
    def broken():
        yield entry(ask("a")), Reply("positive")
        raise KeyboardInterrupt

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(KeyboardInterrupt):
            ledger.keep(broken(), 1.0)
        assert ledger.usage() == Usage()


def test_a_ledger_of_a_newer_freeal_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "ledger.sqlite") as new:
        new.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(RunError, match=rf"written by a newer freeal \(schema {SCHEMA + 1}, this one knows {SCHEMA}\)"):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("something else entirely", encoding="utf-8")
    with pytest.raises(
        RunError, match=r"cannot be used as a ledger \(file is not a database\); save what can be:  freeal repair"
    ):
        Ledger(tmp_path / "ledger.sqlite")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be used as a ledger"):
        Ledger(tmp_path / "gone" / "ledger.sqlite")


def test_a_ledger_to_reuse_must_be_there(tmp_path):
    with pytest.raises(RunError, match="no ledger here"):
        Ledger(tmp_path / "ledger.sqlite", [tmp_path / "gone.sqlite"])


def test_a_request_is_in_doubt_until_its_reply_is_there(tmp_path):
    path, asked = tmp_path / "ledger.sqlite", ask()
    with Ledger(path) as ledger:
        ledger.sent(entry(asked)).result()
        assert (ledger.find(key(asked), "round 0"), ledger.in_doubt()) == (None, 1)
        ledger.received([(entry(asked), "{raw}")], 0.1).result()
        assert (ledger.find(key(asked), "round 0"), ledger.in_doubt()) == (Unread("{raw}"), 0)
        ledger.read(key(asked), Reply("positive", None, 5, 1), 0.25)
        assert ledger.usage() == Usage(1, 0, 5, None, 1, 0.1, 0.25)
    with Ledger(path) as again:
        assert again.find(key(asked), "round 0") == Reply("positive", None, 5, 1)


def test_an_attempt_that_may_have_been_billed_stays_in_doubt_when_another_is_answered(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for billed in (True, False):
            ledger.sent(entry(ask()))
            ledger.failed(key(ask()), billed, 0.5)
        ledger.settle()
        assert list(ledger.unanswered()) == []
        ledger.sent(entry(ask()))
        ledger.settle()
        assert list(ledger.unanswered()) == [(key(ask()), "round 0", ask())]
        ledger.received([(entry(ask()), "{raw}")], 0.1)
        ledger.read(key(ask()), Reply("positive", None, 5, 1), 0.25)
        assert ledger.usage() == Usage(1, 0, 5, None, 1, 0.1, 0.25, 0.5)
        assert ledger.in_doubt() == 1


def test_a_reply_whose_request_was_sent_by_another_run_is_kept_too(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.received([(entry(ask()), "{raw}")], 0.0).result()
        assert ledger.find(key(ask()), "round 0") == Unread("{raw}")


def test_raw_replies_are_found_with_what_was_asked(tmp_path):
    asked = ask(NASTY, max_tokens=7, temperature=0.5)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.received([(entry(asked), "{raw}")], 0.0).result()
        keep(ledger, Reply("computed here"))
        assert list(ledger.raw()) == [(key(asked), "{raw}", asked, Unread("{raw}"))]


def test_rows_are_accounted_for_by_work(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (kept,) = keep(ledger, Reply("positive"))
        ledger.note_rows("round 0", [("r0", kept), ("again", kept), ("r1", "never asked")])
        assert [(work, uid, reply) for work, uid, reply in ledger.rows()] == [
            ("round 0", "r0", Reply("positive")), ("round 0", "again", Reply("positive")), ("round 0", "r1", None)
        ]  # fmt: skip


def test_facts_are_remembered(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.recall("ways") is None
        ledger.remember("ways", {"logprobs": 20, "spared": ["seed"]})
    with Ledger(tmp_path / "ledger.sqlite") as again:
        assert again.recall("ways") == {"logprobs": 20, "spared": ["seed"]}


OLD = """CREATE TABLE replies (
  key TEXT PRIMARY KEY, question TEXT NOT NULL, work TEXT NOT NULL, uid TEXT NOT NULL, messages TEXT NOT NULL,
  text TEXT, logprobs TEXT, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, problem TEXT,
  seconds REAL NOT NULL, reused INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
PRAGMA user_version = 1;
INSERT INTO replies VALUES
  ('k', 'q', 'round 0', 'r0', '[["user", "x"]]', 'positive', '[-0.1, -2.0]', 9, 1, NULL, 2.0, 0);
"""


@pytest.mark.parametrize("beneath", [True, False])
def test_a_ledger_of_the_first_schema_is_understood(tmp_path, beneath):
    old = tmp_path / "old.sqlite"
    with sqlite3.connect(old) as first:
        first.executescript(OLD)
    first.close()
    with Ledger(tmp_path / "new.sqlite" if beneath else old, [old] if beneath else []) as ledger:
        assert ledger.find("k", "round 0") == Reply("positive", (-0.1, -2.0), 9, 1)
        assert ledger.usage().calls == (0 if beneath else 1)


NEW_SINCE: dict[int, tuple[str, ...]] = {2: ("tokens_cached", "doubtful", "doubt"), 3: ()}
"""Schema -> columns that it has not."""


@pytest.mark.parametrize("beneath", [True, False])
@pytest.mark.parametrize("schema", NEW_SINCE)
def test_a_ledger_of_an_earlier_schema_is_understood(tmp_path, schema, beneath):
    path = tmp_path / "old.sqlite"
    with Ledger(path) as ledger:
        (kept,) = keep(ledger, Reply("positive", None, 9, 1))
    with sqlite3.connect(path) as old:
        for column in NEW_SINCE[schema]:
            old.execute(f"ALTER TABLE requests DROP COLUMN {column}")
        old.execute("DROP TABLE states")
        old.execute(f"PRAGMA user_version = {schema}")
    old.close()
    with Ledger(tmp_path / "new.sqlite" if beneath else path, [path] if beneath else []) as ledger:
        assert ledger.find(kept, "round 0") == Reply("positive", None, 9, 1)
        assert ledger.usage().calls == (0 if beneath else 1)
        assert ledger.state(kept) is None
        ledger.keep_states({kept: LAYER_1})
        assert ledger.state(kept) == LAYER_1


LAYER_1, AGAIN, LAYER_2 = b"\x01\x00ab", b"\x01\x00cd", b"\x02\x00ab"


def test_a_hidden_state_is_kept_with_its_reply_and_the_first_of_its_layer_stays(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with_, without = keep(ledger, Reply("a", (0.0,), hidden=LAYER_1), Reply("b"))
        assert ledger.find(with_, "round 0") == Reply("a", (0.0,))
        assert (ledger.state(with_), ledger.state(without), ledger.state("nobody")) == (LAYER_1, None, None)
        ledger.keep_states({with_: AGAIN, without: AGAIN})
        assert (ledger.state(with_), ledger.state(without)) == (LAYER_1, AGAIN)
        ledger.keep_states({with_: LAYER_2})
        assert ledger.state(with_) == LAYER_2
    with Ledger(tmp_path / "second.sqlite", [tmp_path / "ledger.sqlite"]) as second:
        assert second.state(with_) == LAYER_2
        second.settle()
    with Ledger(tmp_path / "second.sqlite") as second:
        assert second.state(with_) == LAYER_2, "what was beneath is copied"


def test_what_the_prefix_cache_saved_is_added_up(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        keep(ledger, Reply("a", None, 10, 1, tokens_cached=6), Reply("b", None, 20, 1, tokens_cached=16))
        assert ledger.usage().tokens_cached == 22


def test_a_wait_that_is_given_up_does_not_stop_the_writer(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert not ledger.sent(entry(ask())).cancel()
        keep(ledger, Reply("positive"))
        assert ledger.usage().calls == 1


def test_what_cannot_be_kept_is_told_and_the_rest_is_kept(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        keep(ledger, Reply("positive"))
        half = ledger.read(key(ask("text 0")), Reply("\ud83d"))
        with pytest.raises(RunError, match="could not be written"):
            half.result()
        with pytest.raises(RunError, match="could not be written"):
            ledger.settle()


def test_a_ledger_that_is_just_being_made_has_nothing_yet(tmp_path):
    """As `freeal status` may meet it: the file is there, its tables are not."""
    (tmp_path / "ledger.sqlite").touch()
    with Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert list(ledger.rows()) == []
        assert ledger.usage().calls == 0
        assert not ledger.has("a key")
