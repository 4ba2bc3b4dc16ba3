"""Rows in, distributions out; every question is paid for once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from freeal.annotator import Annotator
from freeal.errors import CallsSpent, LLMUnavailable, Unreadable
from freeal.events import Note, Progress
from freeal.ledger import Ledger
from freeal.llm import UNHEARD, Capabilities, Reply
from freeal.llm.scripted import ScriptedLLM
from freeal.money import Purse
from freeal.prompts import load
from freeal.tasks import TRUST_IN_A_WORD
from freeal.tasks.classification import Classification
from freeal.types import Demonstration, Example, Pool

PROMPT = load(Path(__file__).parent.parent / "prompts" / "mr.md")
NEGATIVE, POSITIVE = 0, 1


def pool_of(*texts):
    return Pool(tuple(Example(f"r{i}", text) for i, text in enumerate(texts)))


def says(text):
    return "negative" if "bore" in text else "positive"


@pytest.fixture
def desk(tmp_path):
    """Makes annotators that share one ledger and one list of events."""
    events = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield lambda answer: Annotator(PROMPT, ScriptedLLM(answer), ledger, events.append), events


def annotate(annotator, pool, shown=None, work="round 0"):
    rows = np.arange(len(pool))
    return annotator.annotate(pool, rows, shown or [()] * len(rows), work)


def test_a_word_is_trusted_somewhat(desk):
    make, _ = desk
    answers = annotate(make(lambda r: says(r.messages[-1].content)), pool_of("a joy", "a bore"))
    np.testing.assert_allclose(answers.proba, [[1 - TRUST_IN_A_WORD, TRUST_IN_A_WORD], [0.9, 0.1]], atol=1e-6)
    assert not answers.scored.any()
    assert answers.problems == (None, None)


def test_only_questions_without_a_kept_reply_are_still_to_be_asked(desk):
    make, _ = desk
    annotator, pool = make(lambda r: "positive"), pool_of("a joy", "a bore", "a joy")
    assert annotator.unasked(pool, "test") == 2, "texts that are alike are asked about once"
    annotate(annotator, pool_of("a joy"))
    assert annotator.unasked(pool, "test") == 1
    annotate(annotator, pool, work="test")
    assert annotator.unasked(pool, "test") == 0


def test_log_probabilities_become_a_distribution(desk):
    make, _ = desk
    answers = annotate(make(lambda r: Reply("x", (np.log(0.1), np.log(0.3)))), pool_of("a joy"))
    np.testing.assert_allclose(answers.proba, [[0.25, 0.75]], atol=1e-6)
    assert answers.scored.all()


def test_the_probability_of_a_label_is_that_of_its_words_together(desk):
    make, _ = desk
    spoken = replace(PROMPT, task=Classification(PROMPT.labels, {"negative": ("bad", "dull")}))
    annotator = replace(make(lambda r: Reply("x", tuple(np.log([0.1, 0.3, 0.6])))), prompt=spoken)
    answers = annotate(annotator, pool_of("a joy"))
    np.testing.assert_allclose(answers.proba, [[0.4, 0.6]], atol=1e-6)
    assert annotator.llm.requests[0].choices == ("bad", "dull", "positive")


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("Maybe positive?", "not a label: 'Maybe positive?'"),
        ("", "empty reply"),
        (Reply(problem="refused"), "refused"),
        (Reply("positive", (float("-inf"), float("-inf"))), "no label has a probability"),
        (Reply("positive", (float("nan"), 0.0)), "no label has a probability"),
    ],
)
def test_an_unreadable_reply_abstains_and_says_why(desk, reply, problem):
    make, events = desk
    answers = annotate(make(lambda r: reply), pool_of("a joy"))
    assert np.isnan(answers.proba).all()
    assert answers.problems == (problem,)
    assert events[-1] == Note(f"1 of 1 rows got no label: 1 × {problem.partition(':')[0]}", "round 0")


def test_answers_stay_with_their_rows_however_they_are_asked(desk):
    make, _ = desk
    texts = [f"text {i} {'bore' if i % 3 else 'joy'}" for i in range(150)]
    demos = [(Demonstration("seen", "positive"),) if i % 2 else () for i in range(150)]
    answers = annotate(make(lambda r: says(r.messages[-1].content)), pool_of(*texts), demos)
    assert answers.proba.argmax(axis=1).tolist() == [NEGATIVE if i % 3 else POSITIVE for i in range(150)]


def test_rows_with_the_same_demonstrations_are_asked_one_after_the_other(desk):
    make, _ = desk
    annotator = make(lambda r: "positive")
    demos = [(Demonstration(f"seen {i % 2}", "positive"),) for i in range(10)]
    annotate(annotator, pool_of(*(f"text {i}" for i in range(10))), demos)
    seen = [request.messages[1].content for request in annotator.llm.requests]
    assert seen == sorted(seen)


def test_a_text_that_occurs_twice_is_asked_once(desk):
    make, _ = desk
    annotator = make(lambda r: "positive")
    answers = annotate(annotator, pool_of("a joy", "a joy", "a bore"))
    assert len(annotator.llm.requests) == 2
    assert annotator.ledger.usage().calls == 2
    assert not np.isnan(answers.proba).any()


def test_what_was_asked_before_is_not_asked_again(desk):
    make, _ = desk
    pool = pool_of(*(f"text {i}" for i in range(100)))
    first = annotate(make(lambda r: "positive"), pool)
    later = make(lambda r: pytest.fail("asked again"))
    np.testing.assert_array_equal(annotate(later, pool, work="round 1").proba, first.proba)


def test_other_demonstrations_are_another_question(desk):
    make, _ = desk
    annotator, pool = make(lambda r: "positive"), pool_of("a joy")
    annotate(annotator, pool)
    annotate(annotator, pool, [(Demonstration("seen", "negative"),)])
    assert annotator.ledger.usage().calls == 2


def test_chunks_that_were_answered_before_the_llm_died_are_kept(desk):
    make, _ = desk

    def dying(request):
        if "text 99" in request.messages[-1].content:
            raise LLMUnavailable("gone")
        return "positive"

    annotator, pool = make(dying), pool_of(*(f"text {i}" for i in range(100)))
    with pytest.raises(LLMUnavailable):
        annotate(annotator, pool)
    assert annotator.ledger.usage().calls == annotator.llm.capabilities.chunk


def test_a_problem_of_the_moment_is_asked_again_and_one_of_the_row_is_not(desk):
    make, _ = desk
    pool = pool_of("a joy", "a bore")
    replies = iter([Reply(problem="server: 503"), Reply(problem="refused")])
    annotate(make(lambda r: next(replies)), pool)
    annotator = make(lambda r: "positive")
    assert annotate(annotator, pool).problems == (None, "refused")
    assert len(annotator.llm.requests) == 1


def test_progress_is_told_up_to_the_last_row(desk):
    make, events = desk
    annotate(make(lambda r: "positive"), pool_of(*(f"text {i}" for i in range(100))))
    assert [event for event in events if isinstance(event, Progress)][-1] == Progress("round 0", 100, 100)


def test_nothing_to_ask_is_nothing_answered(desk):
    make, _ = desk
    answers = make(lambda r: "positive").annotate(pool_of("a joy"), np.arange(0), [], "round 0")
    assert answers.proba.shape == (0, 2)


class Billed(ScriptedLLM):
    """A client that tells the journal what it does, as one that costs money."""

    def complete(self, requests, journal=UNHEARD):
        replies = []
        for place, reply in enumerate(super().complete(requests)):
            journal.sent(place).result()
            journal.received({place: reply.text}, 0.1).result()
            journal.understood(place, reply)
            replies.append(reply)
        return replies


def test_rows_for_which_no_call_is_left_stay_without_an_answer(desk):
    make, _ = desk
    annotator = make(lambda r: says(r.messages[-1].content))
    llm = Billed(lambda r: says(r.messages[-1].content))
    bounded = replace(annotator, llm=llm, purse=Purse(max_calls=2))
    answers = annotate(bounded, pool_of("a joy", "a bore", "a film", "a tale"))
    assert answers.problems == (None, None, "no call left: stop.max_calls", "no call left: stop.max_calls")
    np.testing.assert_allclose(answers.proba[:2].argmax(axis=1), [POSITIVE, NEGATIVE])


def test_entities_taken_from_a_demonstration_are_noticed(desk):
    make, events = desk
    texts, others = (pool_of(*[f"{name}{i} is in Rome" for i in range(40)]) for name in ("Ann", "Bob"))
    shown = [[Demonstration("Zürich has 9 parks", "LOC: Zürich")]] * 40

    def naming(place):
        def answer(request):
            name = request.messages[-1].content.split()[1]
            return f"PER: {name}\nLOC: {place}" if name.endswith("7") else f"PER: {name}\nLOC: Rome"

        return replace(make(answer), prompt=load(PROMPT.path.parent / "conll03.md"))

    (alarm,) = annotate(naming("ZÜRICH"), texts, shown).alarms
    assert alarm.startswith("the LLM copies entities of the demonstrations into 4 of 40 answers")
    assert Note(alarm, "round 0") in events
    assert annotate(naming("Basel"), others, shown).alarms == (), "it may invent what it likes"
    assert annotate(naming("ZÜRICH"), texts).alarms == (), "it was shown nothing"


def test_what_has_to_be_whole_is_not_measured_in_part(desk):
    make, _ = desk
    annotator = make(lambda r: "positive")
    bounded = replace(annotator, llm=Billed(lambda r: "positive"), purse=Purse(max_calls=1))
    with pytest.raises(CallsSpent):
        bounded.annotate(pool_of("a joy", "a bore"), np.arange(2), [(), ()], "test", all_or_none=True)


def test_of_words_that_were_not_read_nothing_is_known(tmp_path):
    prompt = load(Path(__file__).parent.parent / "prompts" / "bc5cdr-chem.md")
    text = "aspirin was given twice daily for ten days before warfarin and heparin were given"

    def answer(request):
        asked = request.messages[-1].content
        if "warfarin" in asked:
            return Reply(problem="too long: 99 tokens")
        return "Chemical: aspirin" if "aspirin" in asked else "none"

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        answers = annotate(
            Annotator(prompt, ScriptedLLM(answer), ledger, lambda event: None), pool_of(text, "nothing was given")
        )
    words, half = len(text.split()), len(text.split()) // 2
    said = answers.proba[0]
    assert prompt.task.best(answers.proba)[0, 0] > 0, "aspirin is found in the half that was read"
    assert (said[1:half, 0] > 0.8).all()
    np.testing.assert_allclose(said[half:words], 1 / 3, atol=1e-6)
    assert (answers.proba[1, 3:, 0] == 1).all(), "behind the last word of a text there is surely nothing"


def tried(desk, answer, trial=5, **able):
    annotator = desk[0](answer)
    annotator.llm.capabilities = Capabilities(False, True, trial=trial, **able)
    return annotator


TEXTS = [f"text {i}" for i in range(40)]


def test_an_llm_whose_first_answers_name_no_label_is_asked_no_further(desk):
    annotator = tried(desk, lambda r: "perhaps", reasks=1)
    with pytest.raises(Unreadable, match="none of the first 5 replies names a label"):
        annotate(annotator, pool_of(*TEXTS))
    assert len(annotator.llm.requests) == 10, "each of five rows, and each once more"
    with pytest.raises(Unreadable):
        annotate(annotator, pool_of(*TEXTS))
    assert len(annotator.llm.requests) == 10, "what was paid for is kept"


@pytest.mark.parametrize("readable", ["text 4", "none of the labels"])
def test_one_label_among_the_first_answers_is_enough(desk, readable):
    annotator = tried(desk, lambda r: "positive" if readable in r.messages[-1].content else "perhaps", reasks=1)
    assert len(annotate(annotator, pool_of(*TEXTS)).problems) == 40
    annotate(annotator, pool_of(*(f"more of {text}" for text in TEXTS)), work="round 1")


def test_rows_that_are_refused_tell_nothing_of_an_llm(desk):
    annotator = tried(desk, lambda r: Reply(problem="refused: no"))
    assert annotate(annotator, pool_of(*TEXTS)).problems == ("refused: no",) * 40


def test_a_reply_has_the_room_that_its_llm_needs(desk):
    annotator = tried(desk, lambda r: "positive", room=500)
    pool = pool_of("a joy")
    annotate(annotator, pool)
    assert annotator.llm.requests[0].max_tokens == 500
    assert annotator.unasked(pool, "round 0") == 0


def test_an_answer_that_was_cut_off_although_it_had_room_has_more(desk):
    annotator = tried(desk, lambda r: Reply(problem="cut off: ''") if r.max_tokens < 1000 else "positive", room=500)
    assert annotate(annotator, pool_of("a joy")).problems == (None,)
    assert [request.max_tokens for request in annotator.llm.requests] == [500, 2000]
