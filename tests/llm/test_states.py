"""Hidden states of a tiny causal model: those transformers gives, whatever else is read before or beside."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from freeal import build, prompts
from freeal.annotator import Annotator
from freeal.cli import app
from freeal.config import LocalConfig, parse
from freeal.errors import ConfigError, Unfit
from freeal.events import Progress, ignore
from freeal.ledger import Ledger
from freeal.llm.local import LocalLLM, _Reader
from freeal.llm.states import StatesEmbedder
from freeal.parts import llms, readers, students
from freeal.types import Demonstration, Example, Pool

torch = pytest.importorskip("torch")

TEXTS = ["a fine film", "dull", "", "a very very dull and boring movie", "fine!"]
SERVER = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}
PROMPT = Path(__file__).parents[2] / "prompts" / "mr.md"


@pytest.fixture(scope="module")
def prompt():
    return prompts.load(PROMPT)


def embedder(folder, prompt, depth=0.5, emit=ignore, **settings):
    return StatesEmbedder(
        LocalConfig(model=str(folder), device="cpu", dtype="float32", **settings), prompt, depth, emit
    )


def plain(llm, prompt, text, layer):
    """The state as transformers gives it, of a whole prompt read by the whole model."""
    tokens = llm.chats.tokens(prompt.render(Example("", text)))
    with torch.inference_mode():
        states = llm.reader.model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
    return states[layer + 1][0, -1].numpy()


def test_vectors_are_roots_of_what_the_text_changes_in_the_layers_state(tiny_chat, prompt):
    made = embedder(tiny_chat, prompt)
    found = made.encode(TEXTS)
    assert made.description["layer"] == 0
    for text, vector in zip(TEXTS, found, strict=True):
        apart = plain(made.llm, prompt, text, 0) - plain(made.llm, prompt, "", 0)
        wanted = np.sign(apart) * np.sqrt(np.abs(apart))
        if text:
            np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-3)
    assert found.dtype == np.float32
    assert found.shape == (5, made.description["dimensions"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("whole", [False, True], ids=["packed", "whole"])
def test_a_vector_depends_on_no_other_text_but_for_the_last_bits(tiny_chat, prompt, monkeypatch, whole):
    if whole:
        monkeypatch.setattr(_Reader, "unfit_for_packing", lambda reader: "as if it had layers that forget")
    made = embedder(tiny_chat, prompt)
    together = made.encode(TEXTS)
    assert made.llm.packed is not whole
    np.testing.assert_allclose(np.concatenate([made.encode([text]) for text in TEXTS]), together, atol=2e-3)
    assert embedder(tiny_chat, prompt).encode(TEXTS).tobytes() == together.tobytes()
    assert made.encode([]).shape == (0, 32)


def test_answers_and_states_in_turn_are_what_they_are_alone(tiny_chat, prompt):
    """What is in the cache of the one is too little for the other."""
    settings = LocalConfig(model=str(tiny_chat), device="cpu", dtype="float32")
    requests = [prompt.request(Example("", text)) for text in TEXTS]
    llm = LocalLLM(settings, depth=0.5)
    prompts = [llm.chats.tokens(request.messages) for request in requests]
    states = [llm.states(prompts), llm.complete(requests) and llm.states(prompts)]
    np.testing.assert_allclose(states[1], states[0], atol=1e-5)
    alone, again = LocalLLM(settings).complete(requests), llm.complete(requests)
    np.testing.assert_allclose([r.logprobs for r in again], [r.logprobs for r in alone], atol=1e-5)


def test_layers_above_the_one_read_are_not_computed(tiny_chat, prompt, monkeypatch):
    made = embedder(tiny_chat, prompt)
    made.encode(TEXTS)
    computed = []
    for number, layer in enumerate(made.llm.reader.layer._layers):
        layer.register_forward_hook(lambda *given, number=number: computed.append(number))
    made.encode(["a text", "and another", "and a third one"])
    assert set(computed) == {made.description["layer"]}, "of two layers the first"


@pytest.mark.parametrize("family", ["GPT2", "Llama", "Mistral", "Gemma2"])
def test_other_families_are_read_too(tiny_chat, prompt, tmp_path, family):
    import transformers

    shutil.copytree(tiny_chat, tmp_path / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
    if family == "GPT2":
        sizes, heads = {"n_embd": 32, "n_layer": 2}, {"n_head": 4, "n_positions": 4096}
    if family == "Gemma2":
        heads["sliding_window"] = 16
    config = getattr(transformers, f"{family}Config")(vocab_size=300, initializer_range=0.3, **sizes, **heads)
    (tmp_path / "model" / "model.safetensors").unlink()
    getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(config).save_pretrained(
        tmp_path / "model"
    )
    made = embedder(tmp_path / "model", prompt)
    apart = plain(made.llm, prompt, TEXTS[0], 0) - plain(made.llm, prompt, "", 0)
    wanted = np.sign(apart) * np.sqrt(np.abs(apart))
    np.testing.assert_allclose(made.encode(TEXTS[:1])[0], wanted / np.linalg.norm(wanted), atol=1e-3)


def test_a_text_that_is_too_long_is_cut_and_progress_is_told(tiny_chat, prompt):
    heard = []
    made = embedder(tiny_chat, prompt, emit=heard.append, max_prompt_tokens=600)
    long, *others = made.encode(["fine film " * 200, *map(str, range(80))])
    np.testing.assert_allclose(np.linalg.norm(long), 1.0, rtol=1e-5)
    assert len(others) == 80
    assert heard[-1] == Progress("reading hidden states", 81, 81, "texts")


def test_the_weights_are_those_of_the_llm_that_reads_the_pool(tiny_chat, prompt):
    made = embedder(tiny_chat, prompt)
    reader = LocalLLM(LocalConfig(model=str(tiny_chat), device="cpu", dtype="float32"))
    assert made.llm.reader.model is reader.reader.model


def config(tmp_path, llm, **settings):
    (tmp_path / "pool.csv").write_text("text\n" + "".join(f"{text} {i}\n" for i in range(4) for text in TEXTS))
    data = {"pool": str(tmp_path / "pool.csv")}
    return parse({"data": data, "prompt": str(PROMPT), "llm": llm, "rounds": 2, **settings}, "here")


def test_without_a_model_in_this_process_one_must_be_named(tmp_path, prompt):
    wanted = config(tmp_path, SERVER, embedder={"kind": "hidden_states"})
    with pytest.raises(ConfigError, match=r"embedder\.model"):
        students.embedder(wanted, prompt, ignore)


def test_several_questions_a_text_have_no_one_state(tmp_path):
    reviews = PROMPT.parent / "reviews.md"
    wanted = config(tmp_path, SERVER, embedder={"kind": "hidden_states", "model": "x"}, student={"kind": "linear"})
    with pytest.raises(Unfit, match="hidden_states"):
        build.inputs(wanted, reviews)


def test_a_run_learns_from_them_and_predicts(tmp_path, tiny_chat):
    import yaml

    from freeal.config import to_yaml

    local = {"kind": "local", "model": str(tiny_chat), "device": "cpu", "dtype": "float32"}
    made = config(tmp_path, local, embedder={"kind": "hidden_states"}, student={"kind": "linear"})
    (tmp_path / "run.yaml").write_text(to_yaml(made))
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["embedder"]["kind"] == "hidden_states"
    runner = CliRunner()
    done = runner.invoke(app, ["run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")])
    assert done.exit_code in (0, 3), done.output
    said = runner.invoke(app, ["predict", str(tmp_path / "run"), str(tmp_path / "pool.csv")])
    assert said.exit_code == 0, said.output
    assert len(said.stdout.splitlines()) == 21


def kept_by(folder, prompt, path, depth=0.5, shown=()):
    """A ledger in which the LLM's answers about TEXTS are kept, with their states."""
    llm = LocalLLM(LocalConfig(model=str(folder), device="cpu", dtype="float32"), depth=depth)
    ledger = Ledger(path / "ledger.sqlite")
    pool = Pool(tuple(Example(str(i), text) for i, text in enumerate(TEXTS)))
    annotator = Annotator(prompt, llm, ledger, ignore, states=True)
    annotator.annotate(pool, np.arange(len(pool)), [tuple(shown)] * len(pool), "round 0")
    return ledger


def reader(folder, prompt, ledger=None, depth=0.5):
    settings = LocalConfig(model=str(folder), device="cpu", dtype="float32")
    return StatesEmbedder(settings, prompt, depth, ledger=ledger)


@pytest.mark.parametrize("whole", [False, True], ids=["packed", "whole"])
def test_states_come_with_the_answers_and_are_not_computed_again(tiny_chat, prompt, tmp_path, monkeypatch, whole):
    if whole:
        monkeypatch.setattr(_Reader, "unfit_for_packing", lambda reader: "as if it had layers that forget")
    with kept_by(tiny_chat, prompt, tmp_path) as ledger:
        made = reader(tiny_chat, prompt, ledger)
        found = made.encode(TEXTS)
        np.testing.assert_allclose(found, reader(tiny_chat, prompt).encode(TEXTS), atol=0.02)
        read = []
        monkeypatch.setattr(made, "_read", lambda texts: read.append(texts) or [np.zeros(32, np.float32)] * len(texts))
        assert made.encode(TEXTS).tobytes() == found.tobytes()
        assert not read
        made.encode(["never asked about"])
        assert read == [["never asked about"]]


def test_states_that_were_computed_are_the_same_for_who_goes_on(tiny_chat, prompt, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first = reader(tiny_chat, prompt, ledger).encode(TEXTS)
    with kept_by(tiny_chat, prompt, tmp_path) as ledger:
        again = reader(tiny_chat, prompt, ledger).encode(TEXTS)
    assert again.tobytes() == first.tobytes(), "also where answers, with states of their own, came afterwards"


def test_states_of_another_layer_are_not_taken_for_these(tiny_chat, prompt, tmp_path):
    with kept_by(tiny_chat, prompt, tmp_path, depth=1.0) as ledger:
        known = reader(tiny_chat, prompt, ledger).encode(TEXTS)
        np.testing.assert_allclose(known, reader(tiny_chat, prompt).encode(TEXTS), atol=0.02)


def test_states_are_kept_of_texts_that_are_asked_about_alone(tiny_chat, prompt, tmp_path):
    shown = (Demonstration("a joy", "positive"),)
    with kept_by(tiny_chat, prompt, tmp_path, shown=shown) as ledger:
        assert ledger.usage().calls == len(TEXTS)
        assert next(ledger._select("SELECT count(*) AS n FROM states"))["n"] == 0


def test_answers_are_the_same_whether_states_are_wanted_or_not(tiny_chat, prompt):
    settings = LocalConfig(model=str(tiny_chat), device="cpu", dtype="float32")
    requests = [prompt.request(Example("", text)) for text in TEXTS]
    wanted = [replace(request, state=True) for request in requests]
    plain, unwanted = (LocalLLM(settings, depth=depth).complete(requests) for depth in (None, 0.5))
    kept = LocalLLM(settings, depth=0.5).complete(wanted)
    assert [reply.logprobs for reply in plain] == [reply.logprobs for reply in kept]
    assert {reply.hidden for reply in (*plain, *unwanted)} == {None}
    assert all(len(reply.hidden or b"") == 2 + 2 * 32 for reply in kept)


def test_states_are_kept_of_the_model_they_are_wanted_of_alone(tmp_path, tiny_chat, prompt):
    local = {"kind": "local", "model": str(tiny_chat), "device": "cpu", "dtype": "float32"}
    for wanted, kept in (
        ({"kind": "hidden_states"}, 0.7),
        ({"kind": "hidden_states", "model": "another"}, None),
        ({"kind": "tfidf"}, None),
    ):
        made = config(tmp_path, local, embedder=wanted)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            assert llms.depth_kept(made, made.llm) == kept
            assert readers.reader(made, prompt, Pool(()), ledger, ignore).states == (kept is not None)


def test_a_run_that_goes_on_has_the_same_states(tmp_path, tiny_chat):
    """Killed behind its first round: the same bytes as one that was not."""
    from freeal.config import to_yaml

    local = {"kind": "local", "model": str(tiny_chat), "device": "cpu", "dtype": "float32"}
    settings = {"embedder": {"kind": "hidden_states"}, "student": {"kind": "linear"}, "stop": {"min_change": 0.0}}
    made = config(tmp_path, local, **settings, demos={"kind": "none"}, query={"kind": "all"})
    (tmp_path / "run.yaml").write_text(to_yaml(made))
    whole, again = tmp_path / "whole", tmp_path / "again"
    said = CliRunner().invoke(app, ["run", str(tmp_path / "run.yaml"), "--out", str(whole)])
    assert said.exit_code in (0, 3), said.output
    shutil.copytree(whole, again)
    shutil.rmtree(again / "rounds" / "01")
    for name in ("result.json", "summary.json", "labels.csv"):
        (again / name).unlink()
    said = CliRunner().invoke(app, ["run", "--resume", str(again)])
    assert said.exit_code in (0, 3), said.output
    for name in ("labels.csv", "rounds/01/posterior.parquet", "rounds/01/student/head.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
