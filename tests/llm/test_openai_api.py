"""The client against a real server on the loopback interface."""

import asyncio
import json
import math
import socket
from contextlib import contextmanager
from dataclasses import asdict, replace
from threading import Thread
from types import SimpleNamespace

import pytest
from loopback import Sent, completion, refusal, serve

from freeal.config import OpenAIConfig
from freeal.errors import LLMError, LLMUnavailable
from freeal.llm import Crowded, Message, Request, Unheard

pytest.importorskip("openai", reason="the package openai is not installed")
from freeal.llm.completions import read_completion
from freeal.llm.openai_api import OpenAILLM, key_variable
from freeal.llm.pacing import Clock
from freeal.llm.ways import THINKING, Ways
from freeal.money import Price, Purse
from freeal.tasks.tokens import Tokens
from freeal.testing import faultllm
from freeal.testing.plans import Plan, Rule

CHOICES = ("negative", "positive")


def ask(text, choices=CHOICES):
    return Request((Message("system", "Label reviews."), Message("user", text)), choices, max_tokens=5, uid=text)


class Hurried(Clock):
    """Time flies when one waits."""

    def __init__(self):
        self.slept = []
        self.ahead = 0.0

    def now(self):
        return super().now() + self.ahead

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.ahead += seconds
        await super().sleep(0.001)


TELLS = Ways(logprobs=20)
ENTITIES = Tokens({"PER": "", "LOC": ""}).in_json()


def client(server, ways=TELLS, **settings):
    """A client that knows what the server understands, or, with None, has to find out."""
    config = {"model": "tiny", "base_url": server.url, "attempts": 3, "timeout": 5.0} | settings
    llm = OpenAILLM(OpenAIConfig(**config), clock=Hurried())
    if ways is not None:
        llm.prepare({"asked": llm.asked, "ways": asdict(ways)})
    return llm


@pytest.fixture(autouse=True)
def no_key_of_ours(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_replies_come_in_the_order_of_the_requests_whatever_the_order_on_the_wire():
    texts = [f"text {i}" for i in range(40)]
    with serve(lambda text, attempt: text.upper()) as server:
        replies = client(server, concurrency=8).complete([ask(text) for text in texts])
    assert [reply.text for reply in replies] == [text.upper() for text in texts]
    assert (replies[0].tokens_in, replies[0].tokens_out) == (7, 2)


def test_every_setting_that_changes_an_answer_is_sent():
    with serve(lambda text, attempt: "positive") as server:
        client(server).complete([ask("fine")])
    sent = server.asked[0]
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["seed"]) == ("tiny", 0.0, 1.0, 0)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 20)
    assert sent["max_tokens"] >= len("positive")


def test_the_first_token_gives_the_probability_of_each_choice():
    top = {"pos": -0.2, " Neg": -2.0, "negative": -3.0, "The": -5.0}
    with serve(lambda text, attempt: completion("positive", top)) as server:
        (reply,) = client(server).complete([ask("fine")])
    assert reply.logprobs == pytest.approx((math.log(math.exp(-2) + math.exp(-3)), -0.2))


def test_without_logprobs_there_is_text_only():
    with serve(lambda text, attempt: "positive") as server:
        llm = client(server, ways=Ways())
        (reply,) = llm.complete([ask("fine")])
    assert (reply.text, reply.logprobs) == ("positive", None)
    assert "logprobs" not in server.asked[0]
    assert not llm.capabilities.probabilities


def test_a_busy_server_is_asked_again_after_the_time_it_named():
    def busy(text, attempt):
        return refusal(429, "slow down", retry_after_ms="20") if attempt < 2 else "positive"

    with serve(busy) as server:
        (reply,) = client(server).complete([ask("fine")])
    assert reply.text == "positive"
    assert len(server.asked) == 3


def test_one_row_on_which_the_server_always_fails_is_given_up_alone():
    def broken(text, attempt):
        return refusal(500, "engine fault", retry_after="0") if text == "bad" else "positive"

    with serve(broken) as server:
        replies = client(server).complete([ask("fine"), ask("bad"), ask("good")])
    assert [reply.text for reply in replies] == ["positive", None, "positive"]
    assert replies[1].problem.startswith("server: 500")
    assert sum(asked["messages"][-1]["content"] == "bad" for asked in server.asked) == 3


def test_a_wrong_key_ends_the_work_after_one_request_and_is_not_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-sentinel")
    with (
        serve(lambda text, attempt: refusal(401, "wrong key sk-sentinel")) as server,
        pytest.raises(LLMError, match="environment variable MY_KEY") as raised,
    ):
        client(server, ways=None, key_env="MY_KEY").complete([ask(str(i)) for i in range(20)])
    assert server.keys == ["Bearer sk-sentinel"]
    assert "sentinel" not in str(raised.value)


def test_an_unknown_model_is_told_with_the_models_there_are():
    with (
        serve(lambda text, attempt: refusal(404, "no such model")) as server,
        pytest.raises(LLMError, match="models served: small, tiny"),
    ):
        client(server).complete([ask("fine")])


def test_an_empty_account_is_no_busy_server():
    def broke(text, attempt):
        return "positive" if text == "0" else refusal(429, "you exceeded your quota", "insufficient_quota")

    with serve(broke) as server, pytest.raises(LLMError, match="exceeded your quota"):
        client(server, concurrency=2).complete([ask(str(i)) for i in range(30)])
    assert len(server.asked) <= 1 + 2 * 2


def test_a_missing_key_is_named_before_anything_is_sent():
    with pytest.raises(LLMError, match="environment variable MY_KEY"):
        OpenAILLM(OpenAIConfig(model="tiny", base_url="https://llm.example/v1", key_env="MY_KEY")).prepare()


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (completion(None), "empty reply"),
        (completion("  \n"), "empty reply"),
        (completion("", finish_reason="content_filter"), "refused: content filter"),
        (completion(None, message={"content": None, "refusal": "I cannot"}), "refused: I cannot"),
        (refusal(400, "This model's maximum context length is 512 tokens"), "too long: "),
        (refusal(413, "payload too large"), "too long: "),
        (refusal(400, "The response was filtered", "content_filter"), "refused: "),
    ],
)
def test_what_is_wrong_with_one_text_becomes_its_problem(sent, problem):
    with serve(lambda text, attempt: sent) as server:
        (reply,) = client(server).complete([ask("odd")])
    assert reply.problem.startswith(problem)
    assert len(server.asked) == 1


def test_missing_usage_is_estimated():
    with serve(lambda text, attempt: completion("positive", usage=False)) as server:
        llm = client(server)
        (reply,) = llm.complete([ask("fine " * 10)])
    assert reply.tokens_in == llm.count_tokens([ask("fine " * 10)])[0] > 10
    assert reply.tokens_out == 2


@pytest.mark.parametrize("body", ["<html>hello</html>", {"choices": []}, {"detail": "?"}])
def test_a_server_that_sends_something_else_is_told_from_one_that_is_down(body):
    with serve(lambda text, attempt: Sent(body)) as server, pytest.raises(LLMError, match="with /v1") as raised:
        client(server, ways=None).prepare()
    assert not isinstance(raised.value, LLMUnavailable)


def test_a_body_that_is_no_json_is_asked_for_again():
    def torn(text, attempt):
        return Sent('{"choices": [', headers={"Content-Type": "application/json"}) if attempt == 0 else "positive"

    with serve(torn) as server:
        assert client(server).complete([ask("fine")])[0].text == "positive"


def test_a_setting_the_server_does_not_know_is_told_at_once():
    with (
        serve(lambda text, attempt: refusal(400, "unknown parameter: top_logprobs")) as server,
        pytest.raises(LLMError, match=r"refused every request.*unknown parameter"),
    ):
        client(server).complete([ask("fine"), ask("good")])


@pytest.mark.parametrize("ways", [None, Ways()])
def test_a_server_that_is_not_there_is_waited_for_and_can_be_resumed_later(ways):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    llm = client(SimpleNamespace(url=url), ways=ways, server_wait=90.0)
    with pytest.raises(LLMUnavailable, match="is the server up"):
        llm.complete([ask("fine"), ask("good")])
    assert 80 < sum(llm.clock.slept) < 100


def test_a_client_can_be_used_again_and_inside_a_running_loop():
    with serve(lambda text, attempt: "positive") as server:
        llm = client(server)
        llm.complete([ask("fine")])

        async def notebook_cell():
            return llm.complete([ask("good"), ask("bad")])

        assert [reply.text for reply in asyncio.run(notebook_cell())] == ["positive", "positive"]


@pytest.mark.parametrize("url", ["http://me:secret@localhost:8000/v1", "http://localhost:8000/v1?key=secret"])
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="key_env") as raised:
        OpenAIConfig(model="tiny", base_url=url)
    assert "no user, password or query" in str(raised.value)


def test_the_key_of_openai_goes_to_nobody_else_unasked(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sentinel")
    with serve(lambda text, attempt: "positive") as server:
        client(server).complete([ask("fine")])
    assert server.keys == ["Bearer none"]


def test_the_key_of_openai_goes_to_openai_and_to_the_server_that_the_environment_names(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1/")
    urls = ("https://api.openai.com/v1/", "https://gateway.example/v1", "https://api.openai.com.example/v1")
    assert [key_variable(None, [url]) for url in urls] == ["OPENAI_API_KEY", "OPENAI_API_KEY", None]
    assert key_variable(None, urls) is None
    assert key_variable("MINE", urls) == "MINE"


def test_the_identity_tells_the_model_and_no_place():
    config = OpenAIConfig(model="tiny", base_url="http://localhost:8000/v1/")
    llm = OpenAILLM(config)
    llm.prepare({"asked": llm.asked, "ways": asdict(TELLS)})
    assert llm.identity["model"] == "tiny"
    assert "localhost" not in str(llm.identity)


@pytest.mark.parametrize(
    ("completion", "problem"),
    [
        ({"choices": [None]}, "unreadable reply"),
        ({"choices": [{"message": "positive"}]}, "unreadable reply"),
        ({"choices": [{"message": {"refusal": True}}]}, "refused"),
        ({"choices": [{"message": {"content": "positive"}}], "usage": {"prompt_tokens": "many"}}, "unreadable reply"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, "cut off"),
        ({"choices": [{"message": {"content": "a half \ud83d"}}]}, None),
        ({"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": [{"logprob": 0}]}]}}]},
         "unreadable reply"),
    ],
)  # fmt: skip
def test_a_completion_of_any_shape_is_read_or_told(completion, problem):
    reply = read_completion(json.dumps(completion), ask("fine"), 9)
    assert (reply.problem or "none").startswith(problem or "none")
    (reply.text or "").encode()


@pytest.mark.parametrize(
    "mark", ["<|im_start|>", "<|eot_id|>", "[INST]", "</s>", "<end_of_turn>", "<｜User｜>", "<<SYS>>"]
)
def test_a_text_forges_no_turn_of_the_served_model(mark):
    with serve(lambda text, attempt: "positive") as server:
        client(server).complete([ask(f"fine {mark} film")])
    (asked,) = server.asked
    assert mark not in asked["messages"][-1]["content"]
    assert asked["messages"][-1]["content"].replace("\u200b", "") == f"fine {mark} film"


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(params=["aiohttp", "plain"])
def transport(request, monkeypatch):
    """Each of the two HTTP libraries that the client may use."""
    if request.param == "plain":
        monkeypatch.setattr("freeal.llm.openai_api._http_client", lambda: None)
    return request.param


def test_a_refused_connection_is_no_timeout_and_costs_nothing(transport):
    llm = client(serving(f"http://127.0.0.1:{closed_port()}/v1"), server_wait=0.0)
    told = Told()
    with pytest.raises(LLMUnavailable, match=r"127\.0\.0\.1") as raised:
        llm.complete([ask("a")], told)
    assert "no answer within" not in str(raised.value)
    assert told.billed == []


def test_a_connection_that_is_cut_may_have_been_billed(transport):
    async def cut(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    with listening(cut) as url:
        told = Told()
        with pytest.raises(LLMUnavailable) as raised:
            client(serving(url), server_wait=0.0).complete([ask("a")], told)
    assert "no answer within" not in str(raised.value)
    assert told.billed


def test_a_server_that_is_too_slow_is_told_as_such(transport):
    async def hang(reader, writer):
        await asyncio.sleep(5)

    with listening(hang) as url:
        told = Told()
        with pytest.raises(LLMUnavailable, match=r"no answer within 0\.3 s"):
            client(serving(url), server_wait=0.0, timeout=0.3).complete([ask("a")], told)
    assert told.billed


def test_the_next_server_is_asked_when_one_is_down(transport):
    with serve(lambda text, attempt: "positive") as server:
        down = f"http://127.0.0.1:{closed_port()}/v1"
        llm = client(serving((down, server.url)), concurrency=8)
        replies = llm.complete([ask(f"text {i}") for i in range(16)])
    assert [reply.text for reply in replies] == ["positive"] * 16


def test_a_single_refused_row_is_no_refusal_of_all():
    with serve(lambda text, attempt: refusal(400, "strange") if text == "bad" else "positive") as server:
        llm = client(server)
        assert llm.complete([ask("bad")])[0].problem.startswith("server: request refused")
        assert [reply.problem is None for reply in llm.complete([ask("bad"), ask("fine")])] == [False, True]
        assert all(reply.problem for reply in llm.complete([ask("bad")]))


@pytest.mark.parametrize("other", [{"model": "another"}, {"strategy": "text"}, {"votes": 5}])
def test_what_was_found_out_for_another_model_or_strategy_is_found_out_anew(other):
    with serve(lambda text, attempt: completion("green", {"green": -0.1})) as server:
        config = {"model": "tiny", "base_url": server.url}
        before = OpenAILLM(OpenAIConfig(**config)).prepare()
        asked = len(server.asked)
        OpenAILLM(OpenAIConfig(**config)).prepare(before)
        assert len(server.asked) == asked
        OpenAILLM(OpenAIConfig(**config | other)).prepare(before)
        assert len(server.asked) > asked


def test_what_is_required_is_asked_of_what_was_found_out_before():
    with serve(lambda text, attempt: "green") as server:
        config = {"model": "tiny", "base_url": server.url}
        before = OpenAILLM(OpenAIConfig(**config)).prepare()
        with pytest.raises(LLMError, match="gives no probabilities"):
            OpenAILLM(OpenAIConfig(**config, require="probabilities")).prepare(before)


@pytest.mark.parametrize("ways", [Ways(), Ways(constraint="response_format"), Ways(logprobs=20)])
@pytest.mark.parametrize("request_", [ask("a"), replace(ask("a"), max_tokens=128)], ids=["as asked", "more room"])
def test_no_body_allows_more_tokens_than_the_purse_reserves(ways, request_):
    reserved = Purse(Price(0.0, 1e6)).worst(request_)
    assert ways.body("tiny", request_)["max_tokens"] <= reserved


class Told(Unheard):
    """A journal that remembers which attempts may have been billed."""

    def __init__(self):
        self.billed = []

    def failed(self, place, billed=False):
        self.billed += [place] * billed


def serving(url):
    return SimpleNamespace(url=url)


@contextmanager
def listening(handle):
    """A server below HTTP, in a loop of its own; gives its URL."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(handle, "127.0.0.1", 0), loop).result()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.parametrize(
    ("plan", "held"),
    [(Plan(), True), (Plan(refuses=["response_format"]), False), (Plan([Rule("ignore_constraint")]), False)],
)
@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_whether_a_server_keeps_to_a_schema_is_found_out_once(plan, held, dialect):
    with faultllm.serving(plan, dialect) as server:
        config = OpenAIConfig(model="tiny", base_url=server.url)
        first = OpenAILLM(config, clock=Hurried(), schema=True)
        known = first.prepare()
        assert first.capabilities.structured is held
        asked = server.stats().requests
        again = OpenAILLM(config, clock=Hurried(), schema=True)
        again.prepare(json.loads(json.dumps(known)))
        assert again.ways == first.ways
        assert server.stats().requests == asked
        OpenAILLM(config, clock=Hurried()).prepare(known)
        assert server.stats().requests > asked, "for another task it is found out anew"


def test_text_is_held_to_its_schema_where_the_server_can():
    names = {"PER": ["Ann"], "LOC": ["Rome"]}
    request = Request((Message("user", "Ann in Rome"),), max_tokens=64, schema=ENTITIES.form.schema)
    with faultllm.serving(Plan(keywords=names)) as server:
        (reply,) = client(server, ways=Ways(schema=True)).complete([request])
        assert json.loads(reply.text)["entities"][1] == {"text": "Rome", "type": "LOC"}
        assert ENTITIES.heard(reply.text, "Ann in Rome").problem is None
        (free,) = client(server, ways=Ways()).complete([request])
        assert free.text in names


def test_json_that_was_cut_off_is_told():
    raw = json.dumps({"choices": [{"message": {"content": '{"entities": [{"te'}, "finish_reason": "length"}]})
    request = Request((Message("user", "Ann"),), schema=ENTITIES.form.schema)
    assert read_completion(raw, request, 3).problem.startswith("cut off")
    assert read_completion(raw, replace(request, schema=None), 3).problem is None


def test_votes_for_one_word_are_not_outweighed_by_the_many_words_of_another_label():
    choices = ("place", *(f"thing {i}" for i in range(13)))
    raw = {"choices": [{"message": {"content": "place"}, "finish_reason": "stop"}] * 3}
    reply = read_completion(json.dumps(raw), Request((), choices), 1)
    place, *things = map(math.exp, reply.logprobs)
    assert place > sum(things)


OF_PROBE = "What colour"


def after(count, then, good="positive"):
    """An answer that is good for `count` requests, probes apart, and then, for as long as it gives one, `then()`."""
    seen = [0]

    def answer(text, attempt):
        if OF_PROBE not in text:
            seen[0] += 1
        return good if seen[0] <= count else (then() or good)

    return answer


@pytest.mark.parametrize("headers", [{}, {"retry_after": "600"}])
@pytest.mark.parametrize("status", [502, 503, 529])
def test_an_outage_behind_a_gateway_costs_no_row(status, headers):
    left = [9]

    def away():
        left[0] -= 1
        return refusal(status, "nobody there", **headers) if left[0] > 0 else None

    with serve(after(5, away)) as server:
        replies = client(server, concurrency=4, attempts=4).complete([ask(f"text {i}") for i in range(40)])
    assert [reply.text for reply in replies] == ["positive"] * 40


def test_a_row_that_a_gateway_never_answers_is_given_up_alone():
    def broken(text, attempt):
        return refusal(503, "no", retry_after="900") if text == "bad" else "positive"

    with serve(broken) as server:
        replies = client(server, concurrency=1).complete([ask("fine"), ask("bad"), ask("good")])
    assert [reply.text for reply in replies] == ["positive", None, "positive"]
    assert replies[1].problem.startswith("server: 503")


def test_a_server_that_is_too_slow_for_so_many_is_asked_fewer_at_once(transport):
    with serve(lambda text, attempt: "positive" if attempt else refusal(504, "too slow")) as server:
        llm = client(server, concurrency=16)
        llm.complete([ask(f"text {i}") for i in range(4)])
    assert llm._pace.allowed < 16


def test_one_text_that_is_forbidden_is_no_wrong_key():
    def guarded(text, attempt):
        return refusal(403, "blocked") if text == "bad" else "positive"

    with serve(guarded) as server:
        replies = client(server, concurrency=1).complete([ask("fine"), ask("bad"), ask("good")])
    assert [reply.text for reply in replies] == ["positive", None, "positive"]
    assert replies[1].problem.startswith("request refused: 403")


def test_rows_that_are_all_forbidden_are_not_asked_to_the_end():
    def guarded(text, attempt):
        return "green" if OF_PROBE in text else refusal(403, "blocked")

    with serve(guarded) as server, pytest.raises(LLMError, match="refused 20 rows alike"):
        client(server, concurrency=1).complete([ask(f"text {i}") for i in range(100)])
    assert len(server.asked) == 40, "each, and a small question"


def test_a_forbidden_text_is_asked_about_again_where_the_key_could_not_be_tried():
    def guarded(text, attempt):
        return refusal(429, "slow down") if OF_PROBE in text else refusal(403, "blocked")

    with serve(guarded) as server:
        (reply,) = client(server).complete([ask("bad")])
    assert reply.problem.startswith("server: 403")


def test_a_key_that_is_forbidden_ends_the_work():
    with serve(lambda text, attempt: refusal(403, "no")) as server, pytest.raises(LLMError, match="OPENAI_API_KEY"):
        client(server, concurrency=1).complete([ask("fine"), ask("good")])


@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"message": "You exceeded your current quota. Please retry in 17.3s."}}],
        {"error": "Model is too busy. Please retry in 17.3s."},
        {"detail": "Please retry in 17.3s."},
    ],
)
def test_an_error_in_any_form_is_read(body):
    with serve(lambda text, attempt: Sent(body, 429) if attempt == 0 else "positive") as server:
        llm = client(server)
        assert llm.complete([ask("fine")])[0].text == "positive"
    assert 17 < llm.clock.slept[0] < 20


@pytest.mark.parametrize(
    ("key", "told"), [("sk-sen\ntinel", "white space"), ("“sk-sentinel”", "not ASCII"), ("sk-\x07sentinel", "control")]
)
def test_a_key_that_cannot_be_sent_is_told_by_the_name_of_its_variable(monkeypatch, key, told):
    monkeypatch.setenv("MY_KEY", key)
    with serve(lambda text, attempt: "positive") as server, pytest.raises(LLMError, match=told) as raised:
        client(server, ways=None, key_env="MY_KEY").prepare()
    assert "MY_KEY" in str(raised.value)
    assert "sen" not in str(raised.value)
    assert server.asked == []


def test_white_space_around_a_key_is_no_part_of_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", " sk-sentinel\n")
    with serve(lambda text, attempt: "positive") as server:
        client(server, key_env="MY_KEY").complete([ask("fine")])
    assert server.keys == ["Bearer sk-sentinel"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_address_of_openai_may_end_with_a_slash(monkeypatch, slash):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sentinel")
    assert OpenAILLM(OpenAIConfig(model="tiny", base_url=f"https://api.openai.com/v1{slash}"))._key == "sk-sentinel"


class Poor(Unheard):
    """A journal that lacks the money for a row until it was asked a few times."""

    def __init__(self):
        self.looks = 0

    def sent(self, place):
        self.looks += 1
        if self.looks < 50:
            raise Crowded
        return super().sent(place)


def test_looking_for_money_takes_nothing_of_the_rate():
    with serve(lambda text, attempt: "positive") as server:
        llm = client(server, requests_per_minute=60)
        llm.complete([ask("fine"), ask("good")], Poor())
    assert sum(llm.clock.slept) < 5


def voted(*texts, **usage):
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
    return json.dumps({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 5} | usage})


@pytest.mark.parametrize(
    "form",
    [
        "**Positive**",
        "Label: positive",
        '```json\n{"label": "positive"}\n```',
        "positive。",
        "<think>?</think>positive",
    ],
)
def test_a_vote_is_read_as_a_reply_is_that_stands_alone(form):
    reply = read_completion(voted(*[form] * 4, "negative"), ask("fine"), 1)
    assert list(map(math.exp, reply.logprobs)) == pytest.approx([0.25, 0.75])


def test_votes_of_which_most_name_no_label_say_nothing():
    assert read_completion(voted("positive", "perhaps", "who knows"), ask("fine"), 1).logprobs is None
    assert read_completion(voted("positive", "perhaps"), ask("fine"), 1).logprobs is not None


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"completion_tokens": 2, "total_tokens": 307}, 302),
        ({"completion_tokens": 300, "total_tokens": 305}, 300),
        ({"completion_tokens": 2, "total_tokens": None}, 2),
        ({"completion_tokens": None, "total_tokens": 9}, 4),
        ({"prompt_tokens": None, "completion_tokens": 2, "total_tokens": 9}, 2),
    ],
)
def test_thoughts_that_are_counted_apart_are_paid_for_all_the_same(usage, written):
    assert read_completion(voted("positive", **usage), ask("fine"), 1).tokens_out == written


def test_a_reply_in_parts_is_one_text():
    parts = [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "posi"}, {"type": "text", "text": "tive"}]
    assert read_completion(voted(parts), ask("fine"), 1).text == "positive"


def found_out(answer, **settings):
    """What a client finds out of a server, and what that server was asked."""
    with serve(answer) as server:
        llm = client(server, ways=None, **settings)
        llm.prepare()
        return llm.ways, server.asked


GREEN = {"green": -0.1, "The": -3.0}


@pytest.mark.parametrize(
    "said", ["System role not supported", "Conversation roles must alternate user/assistant/user/assistant/..."]
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_system_turn_is_folded_into_that_of_the_user_where_it_is_refused(said, status):
    def answer(text, attempt):
        return (
            completion("positive", GREEN)
            if server.asked[-1]["messages"][0]["role"] == "user"
            else refusal(status, said)
        )

    with serve(answer) as server:
        llm = client(server, ways=None)
        (reply,) = llm.complete([ask("fine")])
    assert reply.text == "positive"
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "Label reviews.\n\nfine"}]
    assert llm.identity["system"] is False
    assert "no system turn" in llm.ways.told()


def test_who_takes_a_system_turn_is_known_by_the_same_name_as_before():
    llm = client(serving("http://localhost:9/v1"))
    assert set(llm.identity) == {"kind", "model", "constraint", "logprobs", "votes", "spared"}


def first(**choice):
    return Sent({"choices": [{"message": {"content": "green"}, "finish_reason": "stop"} | choice]})


@pytest.mark.parametrize(
    "logprobs",
    [
        ["green"], {"content": "green"}, {"content": [["green", -0.1]]}, {"tokens": ["green"]},
        {"content": [{"top_logprobs": {"green": -0.1}}]},
        {"content": [{"top_logprobs": [{"logprob": -0.1}, {"logprob": -3.0}]}]},
    ],
)  # fmt: skip
def test_probabilities_that_rows_could_not_be_read_with_are_not_asked_for(logprobs):
    with serve(
        lambda text, attempt: first(logprobs=logprobs) if server.asked[-1].get("logprobs") else "green"
    ) as server:
        llm = client(server, ways=None)
        (reply,) = llm.complete([ask("fine")])
    assert llm.ways.logprobs == 0
    assert (reply.text, reply.problem) == ("green", None)


@pytest.mark.parametrize("choice", [None, "green", {"message": "green"}])
def test_a_server_of_which_nothing_can_be_read_is_told_before_anything_is_paid_for(choice):
    with pytest.raises(LLMError, match="answered oddly: unreadable reply"):
        found_out(lambda text, attempt: Sent({"choices": [choice]}))


def test_one_candidate_a_token_makes_no_probabilities():
    ways, _ = found_out(lambda text, attempt: completion("green", {"green": -0.1}))
    assert ways.logprobs == 0


def some(count):
    choice = {"message": {"content": "green"}, "finish_reason": "stop"}
    return Sent({"choices": [choice] * count, "usage": {"prompt_tokens": 7, "completion_tokens": count}})


def test_votes_are_asked_for_where_the_server_gives_them():
    with serve(lambda text, attempt: some(server.asked[-1].get("n", 1))) as server:
        llm = client(server, ways=None, votes=5)
        llm.complete([ask("fine")])
    assert llm.ways.votes == 5
    assert server.asked[-1]["n"] == 5


@pytest.mark.parametrize("strategy", ["auto", "votes"])
def test_a_server_that_gives_one_reply_however_many_are_asked_for_is_asked_soberly(strategy):
    notes = []
    with serve(lambda text, attempt: some(1)) as server:
        llm = client(server, ways=None, votes=5, strategy=strategy)
        llm.emit = notes.append
        llm.complete([ask("fine")])
    assert llm.ways.votes == 1
    assert "n" not in server.asked[-1]
    assert server.asked[-1]["temperature"] == 0.0
    assert any("llm.votes does nothing" in note.message for note in notes)


def thinking(needs, told=True):
    """A model that thinks for `needs` tokens before it speaks, and says nothing where there is no room for it."""

    def answer(asked):
        room = asked["max_tokens"]
        text, reason = ("positive", "stop") if room > needs else ("", "length")
        sent = completion(text, finish_reason=reason)
        details = {"completion_tokens_details": {"reasoning_tokens": min(room, needs)}} if told else {}
        sent.body["usage"] |= {"completion_tokens": min(room, needs + 2)} | details
        return sent

    return answer


@pytest.mark.parametrize("told", [True, False])
def test_a_model_that_thinks_first_has_room_to_speak(told):
    think = thinking(300, told)
    with serve(lambda text, attempt: think(server.asked[-1])) as server:
        llm = client(server, ways=None)
        llm.prepare()
        (reply,) = llm.complete([llm.ways.roomy(ask("fine"))])
    assert reply.text == "positive"
    assert llm.capabilities.room == THINKING
    assert "2,048 tokens of room" in llm.ways.told()


def test_a_model_that_has_no_room_to_finish_a_message_is_given_it():
    def answer(text, attempt):
        if server.asked[-1]["max_tokens"] < 1000:
            return refusal(400, "Could not finish the message because max_tokens or model output limit was reached.")
        return "green"

    with serve(answer) as server:
        llm = client(server, ways=None)
        llm.prepare()
    assert llm.capabilities.room == THINKING


def test_the_room_of_a_reply_may_be_chosen():
    ways, asked = found_out(lambda text, attempt: "green", reply_tokens=500)
    assert ways.room == 500
    assert min(each["max_tokens"] for each in asked) >= 500
    assert ways.roomy(ask("fine")).max_tokens == 500
    assert ways.roomy(replace(ask("fine"), max_tokens=2000)).max_tokens == 2000


def test_further_fields_are_sent_and_make_other_answers():
    with serve(lambda text, attempt: "green") as server:
        llm, plain = client(server, ways=None, extra_body={"reasoning_effort": "low"}), client(server)
        llm.complete([ask("fine")])
    assert all(asked["reasoning_effort"] == "low" for asked in server.asked)
    assert llm.identity["extra_body"] == '{"reasoning_effort": "low"}'
    assert llm.asked != plain.asked


@pytest.mark.parametrize("name", ["n", "max_tokens", "model", "messages"])
def test_what_freeal_sends_itself_is_no_further_field(name):
    with pytest.raises(ValueError, match=f"does not send itself, found {name}"):
        OpenAIConfig(model="tiny", extra_body={name: 1})


def test_rows_that_are_all_refused_alike_are_not_asked_to_the_end():
    def answer(text, attempt):
        return "green" if OF_PROBE in text else refusal(400, f"strange: {text}")

    with serve(answer) as server, pytest.raises(LLMError, match="answered nothing, and refused 20 rows alike"):
        client(server, concurrency=4).complete([ask(f"text {i}") for i in range(200)])
    assert len(server.asked) <= 24
