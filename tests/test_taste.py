"""What an LLM says of texts that say nothing, and what becomes of a rare label by it."""

import json
import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from commandline import freeal
from test_pipeline import PROMPT, WORDS, go, settings

from freeal import build, config, prompts
from freeal.annotator import Annotator
from freeal.errors import BudgetError
from freeal.events import Note
from freeal.llm import Capabilities, Reply
from freeal.llm.scripted import ScriptedLLM
from freeal.parts import decisions
from freeal.taste import ASKED_FOR, WORK, Taste, content_free
from freeal.types import Example, Pool

COMMON, RARE = list(WORDS)[:2]
ABLE = Capabilities(probabilities=True, generation=True)


def messages(n=200, rare=0.1):
    """Texts whose label is told by the order of two words, which vectors do not see; of every ten, `rare` are rare."""
    rng = np.random.default_rng(0)
    filler = ["so", "it", "is", "now", "here", "please", "hello", "again"]
    for i in range(n):
        is_rare = i % 10 < round(10 * rare)
        told = ("money", "back") if is_rare else ("back", "money")
        text = " ".join([*rng.choice(filler, 3), told[0], *rng.choice(filler, 2), told[1], str(i)])
        yield {"id": f"r{i}", "text": text, "gold": RARE if is_rare else COMMON}


def fond(liking):
    """An LLM that reads the order, if not for sure, and likes the rare label by so many logits whatever it reads."""

    def answer(request):
        text = request.messages[-1].content
        doubt = np.random.default_rng(zlib.crc32(text.encode())).normal()
        both = "money" in text and "back" in text
        told = both * (1 if text.find("money") < text.find("back") else -1)
        p = 1 / (1 + math.exp(-2.5 * told - doubt - liking))
        logprobs = tuple(math.log(p if choice == RARE else 1 - p) for choice in request.choices)
        return Reply(max(request.choices, key=lambda c: logprobs[request.choices.index(c)]), logprobs)

    return answer


def job_of(folder, answer, **more):
    """A run about `messages`, and the events of it."""
    folder.mkdir()
    chosen = settings(folder, **{"rounds": 1, "query": {"scout": 1.0}} | more)
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, messages())), encoding="utf-8")
    events = []
    job = build.job(chosen, *build.inputs(chosen, config.Path(chosen.prompt)), folder, events.append)
    annotator = Annotator(job.prompt, ScriptedLLM(answer, probabilities=True), job.ledger, events.append)
    return build.Job(
        chosen, job.prompt, job.corpus, build.parts(chosen, job.corpus, annotator, events.append), job.store, job.ledger
    ), events


@pytest.mark.parametrize(("liking", "without"), [(-1.5, 0.1), (0.0, 0.1), (1.5, 0.4)])
def test_a_rare_label_stays_rare_whatever_the_llm_likes(tmp_path, liking, without):
    shares = {}
    for count in (24, 0):
        job, _ = job_of(tmp_path / str(count), fond(liking), calibration={"content_free": count})
        _, found = go(job)
        shares[count] = found["shares"]["by_label"][RARE]["final"]
        assert found["usage"]["calls"] == 200 + count
        assert found["rounds"][0]["usage"]["calls"] == 200 + count
    assert shares[24] == pytest.approx(0.1, abs=0.05)
    assert shares[0] == pytest.approx(without, abs=0.05)


def test_they_have_the_words_and_the_length_of_the_pool_and_other_columns_of_its_rows():
    texts = ("one two three four five", "six seven eight nine ten", "a b c d e f g")
    pool = Pool(tuple(Example(text[:3], text, {"title": text[0]}) for text in texts))
    found = content_free(pool, 50, seed=3)
    assert content_free(pool, 50, seed=3) == found != content_free(pool, 50, seed=4)
    assert {len(each.text.split()) for each in found} == {5}
    assert {word for each in found for word in each.text.split()} == set(" ".join(texts).split())
    assert len({each.id for each in found}) == 50
    assert {each.fields["title"] for each in found} == {"o", "s", "a"}


def test_texts_of_a_word_or_two_are_not_mixed():
    assert content_free(Pool(tuple(Example(str(i), "good film") for i in range(9))), 24, 0) == ()
    assert content_free(Pool((Example("x", "今天天气很好我们出去玩吧"),)), 24, 0) == ()


def prompt_for(folder, k):
    path = folder / "prompt.md"
    path.write_text(PROMPT.format(labels=", ".join(list(WORDS)[:k])), encoding="utf-8")
    return prompts.load(path)


@pytest.mark.parametrize(
    ("k", "rows", "able", "more", "wanted"),
    [
        (2, 480, ABLE, {}, 24),
        (2, 470, ABLE, {}, 0),
        (2, 120, ABLE, {"rounds": 1}, 24),
        (2, 480, ABLE, {"calibration": {"content_free": 10}}, 10),
        (2, 480, ABLE, {"calibration": {"kind": "batch"}}, 0),
        (3, 480, ABLE, {}, 0),
        (2, 480, ABLE, {"cold_start": {"kind": "generated"}}, 0),
        (2, 480, ABLE, {"llm": {"kind": "openai", "model": "m"}}, 24),
        (2, 480, ABLE, {"llm": {"kind": "openai", "model": "m", "batch": True}}, 0),
        (2, 480, Capabilities(probabilities=False, generation=True), {}, 0),
        (2, 480, Capabilities(probabilities=True, generation=False, by_uid=True), {}, 0),
        (2, 480, ABLE, {"llm": [{"kind": "scripted", "keywords": {}, "noise": x} for x in (0.1, 0.2)]}, 0),
    ],
)
def test_they_are_asked_about_where_they_serve_and_cost_little(tmp_path, k, rows, able, more, wanted):
    chosen = settings(tmp_path, k=k, **more)
    assert decisions.texts_for_taste(chosen, prompt_for(tmp_path, k), able, rows) == wanted


def test_a_prompt_that_shows_other_columns_has_no_texts_that_say_nothing(tmp_path):
    chosen, path = settings(tmp_path), tmp_path / "prompt.md"
    told = path.read_text(encoding="utf-8").replace("{{ text }}", "{{ title }}: {{ text }}")
    path.write_text(told, encoding="utf-8")
    assert prompts.load(path).fields == ("title",)
    assert decisions.texts_for_taste(chosen, prompts.load(path), ABLE, 480) == 0


def test_short_texts_are_not_planned_for(tmp_path):
    settings(tmp_path, query={"scout": 1.0}, rounds=1, llm={"kind": "scripted", "keywords": WORDS_OF_TWO} | SURE)
    short = [{"id": str(i), "text": f"{WORDS[RARE][0]} {i}", "gold": RARE} for i in range(200)]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, short)), encoding="utf-8")
    assert json.loads(freeal("plan", tmp_path / "run.yaml", "--json").out)["calls"]["content_free"] == 0


def test_a_run_that_goes_on_for_more_rounds_keeps_the_taste_of_its_first(tmp_path):
    job, _ = job_of(tmp_path / "run", fond(1.5))
    go(job)
    more = job.config.model_copy(update={"rounds": 2, "query": job.config.query.model_copy(update={"scout": 0.25})})
    again = build.job(more, job.prompt, job.corpus, tmp_path / "run", lambda event: None)
    assert decisions.texts_for_taste(more, job.prompt, ABLE, 200) == 0
    kept = decisions.taste(more, again.parts.annotator, job.corpus.pool).kept()
    again.ledger.close()
    assert kept.shape == (24, 2)


def test_a_run_that_began_without_it_is_not_asked_for_it_when_it_measures(tmp_path):
    job, _ = job_of(tmp_path / "run", fond(1.5))
    measure = job.parts.measure
    assert measure.calibrate.taste() is None
    assert job.ledger.usage().calls == 0


def test_money_that_ends_amid_it_ends_the_run_and_more_money_asks_the_rest(tmp_path):
    job, _ = job_of(tmp_path / "run", fond(0.0))
    left = iter(range(10))

    def until_spent(request):
        if next(left, None) is None:
            raise BudgetError("spent")
        return fond(0.0)(request)

    poor = replace(job.parts.annotator, llm=ScriptedLLM(until_spent, probabilities=True))
    with pytest.raises(BudgetError):
        Taste(poor, job.corpus.pool, 24, lambda: None, 0)()
    assert taste_of(tmp_path, job, 0)().shape == (24, 2), "as many as it began with"


def taste_of(tmp_path, job, left):
    return Taste(job.parts.annotator, job.corpus.pool, 24, lambda: left, 0)


def test_where_no_calls_are_left_shares_are_estimated_and_a_resumed_run_keeps_to_it(tmp_path):
    job, _ = job_of(tmp_path / "run", fond(0.0))
    assert taste_of(tmp_path, job, 23)() is None
    assert job.ledger.recall(ASKED_FOR) == 0
    assert taste_of(tmp_path, job, None)() is None, "as it began"
    assert job.ledger.usage().calls == 0


def test_a_resumed_run_asks_about_the_same_texts_though_no_calls_are_left(tmp_path):
    job, _ = job_of(tmp_path / "run", fond(0.0))
    asked = taste_of(tmp_path, job, 24)()
    assert asked.shape == (24, 2)
    np.testing.assert_array_equal(taste_of(tmp_path, job, 0)(), asked)
    assert job.ledger.usage([WORK]).calls == 24


def test_a_taste_that_most_answers_do_not_tell_is_not_known(tmp_path):
    said = iter(range(24))
    job, _ = job_of(tmp_path / "run", lambda request: "hm" if next(said) % 2 else fond(0.0)(request))
    assert taste_of(tmp_path, job, None)() is None


def test_what_is_asked_for_the_taste_is_told_planned_and_counted(tmp_path):
    job, events = job_of(tmp_path / "run", fond(0.0), stop={"max_calls": 210})
    _, found = go(job)
    assert found["usage"]["calls"] == 200, "rows come first"
    settings(tmp_path, query={"scout": 1.0}, rounds=1, llm={"kind": "scripted", "keywords": WORDS_OF_TWO} | SURE)
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, messages())), encoding="utf-8")
    planned = json.loads(freeal("plan", tmp_path / "run.yaml", "--json").out)
    assert (planned["calls"]["first_round"], planned["calls"]["content_free"]) == (200, 24)
    assert planned["tokens_in"]["content_free"] > 24 * 5
    assert "taste:  24 texts of chance words" in freeal("plan", tmp_path / "run.yaml").out
    said = freeal("run", tmp_path / "run.yaml", "--out", tmp_path / "told", "--json")
    assert json.loads(said.out)["usage"]["calls"] == 224
    works = json.loads(freeal("status", tmp_path / "told", "--json").out)["works"]
    assert works[WORK] == {"labelled": 24}
    assert not [each for each in events if isinstance(each, Note) and each.where == WORK]


def test_the_taste_is_part_of_what_a_run_costs_at_least(tmp_path):
    settings(tmp_path, query={"scout": 1.0}, rounds=1, llm={"kind": "openai", "model": "gpt-4o-mini"})
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, messages(480))), encoding="utf-8")
    low = {}
    for count in (0, 96):
        more = ("--set", f"calibration.content_free={count}", "--json")
        found = json.loads(freeal("plan", tmp_path / "run.yaml", *more).out)
        assert found["calls"]["content_free"] == count
        low[count] = found["cost"]["low"]
    assert low[96] == pytest.approx(1.2 * low[0], rel=0.1)


WORDS_OF_TWO = {label: WORDS[label] for label in (COMMON, RARE)}
SURE = {"probabilities": True, "noise": 0.0}
