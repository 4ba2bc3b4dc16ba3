"""The test double does what it is told, always the same."""

import math

import pytest

from freeal.config import ScriptedConfig
from freeal.errors import ConfigError
from freeal.llm import Message, Reply, Request
from freeal.llm.scripted import REMEMBERED, ScriptedLLM
from freeal.tasks.classification import Classification

LABELS = ("negative", "positive")
TASK = Classification(dict.fromkeys(LABELS, ""))
KEYWORDS = {"negative": ["awful", "dull"], "positive": ["lovely", "joy"]}
TEXTS = [f"{'a lovely joy' if i % 2 else 'an awful, dull thing'}, number {i}" for i in range(400)]
SHOWN = (Message("user", "an awful film"), Message("assistant", "negative"))


def script(seed=0, **settings):
    return ScriptedLLM.from_config(ScriptedConfig(keywords=KEYWORDS, **settings), TASK, seed)


def ask(text, shown=(), choices=LABELS):
    return Request((*shown, Message("user", text)), choices)


def texts_of(llm, shown=()):
    return [reply.text for reply in llm.complete([ask(text, shown) for text in TEXTS])]


def wrong(replies):
    return {i for i, reply in enumerate(replies) if reply != LABELS[i % 2]}


def test_a_function_may_answer_with_text_or_with_a_reply():
    replies = iter(["positive", Reply(problem="refused")])
    llm = ScriptedLLM(lambda request: next(replies))
    assert llm.complete([ask("a joy"), ask("a joy")]) == [
        Reply("positive", tokens_in=2, tokens_out=1),
        Reply(problem="refused"),
    ]


def test_it_remembers_what_it_was_asked_but_not_for_ever():
    llm = ScriptedLLM(lambda request: "positive")
    llm.complete([ask(str(i)) for i in range(REMEMBERED + 5)])
    assert len(llm.requests) == REMEMBERED
    assert llm.requests[0] == ask("5")


def test_the_label_with_most_keywords_is_the_answer():
    assert wrong(texts_of(script())) == set()


def test_only_the_example_decides_and_not_what_is_shown():
    assert script().complete([ask("a joy", SHOWN)])[0].text == "positive"


def test_a_text_without_keywords_gets_some_label_and_keeps_it():
    plain = [ask(f"text {i}") for i in range(100)]
    first = [reply.text for reply in script().complete(plain)]
    assert set(first) == set(LABELS)
    assert first == [reply.text for reply in script().complete(plain)]


def test_noise_is_fixed_by_text_and_seed_and_about_as_large_as_asked():
    mistakes = wrong(texts_of(script(noise=0.3)))
    assert mistakes == wrong(texts_of(script(noise=0.3)))
    assert mistakes != wrong(texts_of(script(noise=0.3, seed=1)))
    assert 0.2 < len(mistakes) / len(TEXTS) < 0.4


def test_demonstrations_halve_the_noise_and_spoil_nothing():
    llm = script(noise=0.4)
    alone, helped = wrong(texts_of(llm)), wrong(texts_of(llm, SHOWN))
    assert helped < alone
    assert 0.3 < len(helped) / len(alone) < 0.7


def test_some_rows_are_answered_with_prose_and_without_probabilities():
    replies = script(unreadable=0.2).complete([ask(text) for text in TEXTS])
    prose = [reply for reply in replies if reply.text not in LABELS]
    assert 0.1 < len(prose) / len(TEXTS) < 0.3
    assert all(reply.text.startswith("Maybe ") and reply.logprobs is None for reply in prose)


def test_probabilities_add_up_and_are_highest_for_the_answer():
    for reply in script(noise=0.3).complete([ask(text) for text in TEXTS]):
        p = [math.exp(logprob) for logprob in reply.logprobs]
        assert sum(p) == pytest.approx(1.0)
        assert LABELS[p.index(max(p))] == reply.text


def test_mistakes_are_less_sure_on_average():
    replies = script(noise=0.3).complete([ask(text) for text in TEXTS])
    mistakes = wrong([reply.text for reply in replies])
    unsure = [max(replies[i].logprobs) for i in mistakes]
    sure = [max(reply.logprobs) for i, reply in enumerate(replies) if i not in mistakes]
    assert sum(unsure) / len(unsure) < sum(sure) / len(sure)


def test_without_probabilities_there_is_text_only():
    llm = script(probabilities=False)
    assert not llm.capabilities.probabilities
    assert llm.complete([ask("a joy")])[0].logprobs is None


def test_asked_to_write_it_uses_the_keywords_of_the_label_that_is_named():
    request = Request((Message("user", "Write short negative reviews."),), max_tokens=64)
    lines = script().complete([request])[0].text.splitlines()
    assert len(lines) == 8
    assert all("awful" in line or "dull" in line for line in lines)


def test_another_seed_of_the_request_writes_something_else():
    requests = [Request((Message("user", "A positive review"),), max_tokens=64, seed=seed) for seed in (0, 1)]
    first, second = script().complete(requests)
    assert first.text != second.text


def test_keywords_for_something_that_is_no_label_are_refused():
    with pytest.raises(ConfigError, match=r"llm.keywords: 'neutral' is no label; labels are 'negative', 'positive'"):
        ScriptedLLM.from_config(ScriptedConfig(keywords={"neutral": ["so"]}), TASK, 0)


def test_another_script_has_another_identity():
    assert script().identity == script().identity
    assert len({str(llm.identity) for llm in (script(), script(seed=1), script(noise=0.1))}) == 3
