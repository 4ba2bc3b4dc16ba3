"""Kind `vllm` before an engine that stands in for vLLM's: the same probabilities as kind `local`."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from freeal.config import LocalConfig, VLLMConfig
from freeal.errors import LLMError
from freeal.events import Progress
from freeal.llm import Message, Request

torch = pytest.importorskip("torch")

LABELS = ("sport", "sports news", "science", "world")
SYSTEM = Message("system", "Sort the news.")
TEXTS = ["stars", "a match", "a match was lost", "votes are counted in the north", "stars", "the cup", "rain"]


class Engine:
    """Answers as `vllm.LLM.generate` does, one prompt read whole after the other; notes what it was given."""

    def __init__(self, model, **settings):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.settings = settings
        self.calls = []

    def generate(self, prompts, settings, use_tqdm=True):
        self.calls.append([prompt["prompt_token_ids"] for prompt in prompts])
        use_tqdm(total=len(prompts), desc="Rendering prompts").close()
        bar = use_tqdm(total=len(prompts), desc="Processed prompts", dynamic_ncols=True, postfix="")
        outputs = [self._answer(p["prompt_token_ids"], s) for p, s in zip(prompts, settings, strict=True)]
        bar.update(len(prompts))
        bar.close()
        return outputs

    def _answer(self, prompt, settings):
        with torch.inference_mode():
            logprobs = self.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        wanted = settings.logprob_token_ids
        assert wanted is None or len(wanted) <= 128
        step = {token: SimpleNamespace(logprob=float(logprobs[token])) for token in wanted or ()}
        best = int(logprobs.argmax())
        written = SimpleNamespace(text=f" {self.tokenizer.decode([best])}. ", token_ids=[best], logprobs=[step])
        return SimpleNamespace(outputs=[written], prompt_token_ids=prompt, num_cached_tokens=16 * (len(prompt) // 16))


class SamplingParams(SimpleNamespace):
    logprob_token_ids = None


@pytest.fixture
def engine(monkeypatch, tiny_chat):
    """`vllm`, as far as it is used; its environment is given back."""
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Engine, SamplingParams=SamplingParams))
    for name in ("VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    from freeal.llm.vllm_engine import VLLMEngine

    told = []
    llm = VLLMEngine(VLLMConfig(model=str(tiny_chat), max_prompt_tokens=400, engine={"seed": 3}), told.append)
    llm.told = told
    return llm


def ask(text, labels=LABELS, **settings):
    return Request((SYSTEM, Message("user", f"Text: {text}")), labels, **settings)


@pytest.mark.parametrize("labels", [("yes", "no"), LABELS, ("a", "ab", "abc"), tuple(chr(i) for i in range(192, 400))])
def test_probabilities_are_those_of_local(engine, tiny_chat, labels):
    from freeal.llm.local import LocalLLM

    local = LocalLLM(LocalConfig(model=str(tiny_chat), device="cpu", dtype="float32"))
    requests = [ask(text, labels) for text in TEXTS[: 2 if len(labels) > 9 else None]]
    found, expected = engine.complete(requests), local.complete(requests)
    np.testing.assert_allclose(
        np.exp([reply.logprobs for reply in found]), np.exp([reply.logprobs for reply in expected]), atol=1e-5
    )
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    assert [reply.tokens_in for reply in found] == engine.count_tokens(requests)


def test_all_rows_are_asked_together_in_the_order_of_their_tokens_and_what_was_cached_is_told(engine):
    replies = engine.complete([ask(text) for text in TEXTS])
    assert all(prompts == sorted(prompts) for prompts in engine.engine.calls)
    assert {len(prompts) for prompts in engine.engine.calls} == {len(TEXTS)}
    assert all(0 < reply.tokens_cached <= reply.tokens_in for reply in replies)


def test_the_bar_of_the_engine_is_heard_and_not_seen(engine, capfd):
    engine.complete([ask(text) for text in TEXTS])
    assert engine.told[-1] == Progress("vllm", len(TEXTS), len(TEXTS), "prompts")
    assert "prompts" not in capfd.readouterr().err


def test_text_is_written_with_the_settings_of_each_request(engine):
    (reply,) = engine.complete([ask("rain", (), temperature=0.7, max_tokens=20, seed=4)])
    assert reply.text
    assert reply.text == reply.text.strip()
    assert reply.logprobs is None
    assert reply.tokens_out == 1


def test_a_prompt_that_is_too_long_is_a_problem_of_its_own_row(engine):
    short, long = engine.complete([ask("rain"), ask("rain " * 200)])
    assert short.problem is None
    assert long.problem.startswith("not asked: prompt of")


def test_the_engine_is_told_what_the_configuration_says(engine):
    settings = engine.engine.settings
    assert settings["enable_prefix_caching"]
    assert settings["max_model_len"] == 400 + 1024
    assert settings["seed"] == 3
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr", "standard output is for data"


def test_without_vllm_the_mend_is_named(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LLMError, match=r"needs vLLM .*docs/vllm\.md"):
        engine.complete([ask("rain")])


def test_counting_tokens_needs_no_engine(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert engine.count_tokens([ask("rain")])[0] > 10
