"""What every LLM client keeps to, whoever answers."""

import json
from dataclasses import asdict

import pytest
from loopback import completion, refusal, serve

from freeal.config import OpenAIConfig, ScriptedConfig
from freeal.llm import Message, Reply, Request
from freeal.llm.recorded import RecordedLLM
from freeal.llm.scripted import ScriptedLLM
from freeal.tasks.classification import Classification

CHOICES = ("negative", "positive")
BAD = "a text that goes wrong"
TEXTS = [f"text {i}: {'a joy' if i % 3 else 'awful'}" for i in range(30)]


def answer(text):
    return "negative" if "awful" in text else "positive"


def scripted(tmp_path):
    yield ScriptedLLM(lambda r: Reply(problem="told to fail") if r.uid == BAD else answer(r.uid))


def keywords(tmp_path):
    config = ScriptedConfig(keywords={"negative": ["awful"], "positive": ["joy"]})
    llm = ScriptedLLM.from_config(config, Classification(dict.fromkeys(CHOICES, "")), 0)
    failing = llm.answer
    llm.answer = lambda r: Reply(problem="told to fail") if r.uid == BAD else failing(r)
    yield llm


def recorded(tmp_path):
    lines = [{"id": text, "label": answer(text)} for text in TEXTS] + [{"id": BAD, "label": None}]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    yield RecordedLLM.from_labels(path, "id", "label", CHOICES)


def openai(tmp_path):
    pytest.importorskip("openai", reason="the package openai is not installed")
    from freeal.llm.openai_api import OpenAILLM
    from freeal.llm.ways import Ways

    def reply(text, attempt):
        top = {"neg": -0.1, "pos": -2.4} if answer(text) == "negative" else {"pos": -0.1, "neg": -2.4}
        return refusal(400, "maximum context length is 9") if text == BAD else completion(answer(text), top)

    with serve(reply) as server:
        llm = OpenAILLM(OpenAIConfig(model="tiny", base_url=server.url, concurrency=4))
        llm.prepare({"asked": llm.asked, "ways": asdict(Ways(logprobs=20))})
        yield llm


@pytest.fixture(params=[scripted, keywords, recorded, openai], ids=lambda kind: kind.__name__)
def llm(request, tmp_path):
    yield from request.param(tmp_path)


def ask(text):
    return Request((Message("user", text),), CHOICES, uid=text)


def test_there_is_one_reply_a_request_in_their_order(llm):
    replies = llm.complete([ask(text) for text in TEXTS])
    assert [reply.text for reply in replies] == [answer(text) for text in TEXTS]


def test_nothing_asked_is_nothing_answered(llm):
    assert llm.complete([]) == []
    assert llm.count_tokens([]) == []


def test_a_row_that_fails_is_a_problem_and_the_others_are_answered(llm):
    first, bad, last = llm.complete([ask(TEXTS[0]), ask(BAD), ask(TEXTS[1])])
    assert (first.text, last.text) == (answer(TEXTS[0]), answer(TEXTS[1]))
    assert bad.problem
    assert bad.logprobs is None


def test_the_same_question_gets_the_same_reply(llm):
    requests = [ask(text) for text in TEXTS]
    assert llm.complete(requests) == llm.complete(requests)
    assert llm.complete(requests[5:8]) == llm.complete(requests)[5:8]


def test_a_probability_a_choice_comes_from_those_that_promise_it(llm):
    for reply in llm.complete([ask(text) for text in TEXTS]):
        assert (reply.logprobs is not None) == llm.capabilities.probabilities
        if reply.logprobs:
            assert len(reply.logprobs) == len(CHOICES)
            assert CHOICES[reply.logprobs.index(max(reply.logprobs))] == reply.text


def test_tokens_are_counted_without_asking(llm):
    assert len(llm.count_tokens([ask(text) for text in TEXTS])) == len(TEXTS)


def test_the_identity_can_be_written_down_and_stays_the_same(llm):
    before = json.dumps(dict(llm.identity), sort_keys=True)
    llm.complete([ask(TEXTS[0])])
    assert json.dumps(dict(llm.identity), sort_keys=True) == before
    assert llm.identity["kind"] in {"scripted", "recorded", "openai"}
    assert llm.capabilities.chunk > 0
