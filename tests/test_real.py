"""The true LLM, student and data, small: what the other tests do with doubles and tiny models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from freeal import models

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.real


def weights(name: str) -> Path:
    """The folder of an embedded model, or a skip."""
    found = models.cached(name)
    if found is None and os.environ.get("FREEAL_PULL_MODELS"):
        found = models.locate(name)
    if found is None:
        pytest.skip(f"{name} is not in the model cache; run: freeal models pull {name}")
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the quickstart's configuration on 48 of its texts."""
    weights("qwen2.5-coder-0.5b")
    weights("all-minilm-l6-v2")
    folder = tmp_path_factory.mktemp("runs") / "small"
    command = [
        *(sys.executable, "-c", "from freeal.cli import main; main()", "run", ROOT / "configs" / "quickstart.yaml"),
        *("--set", "data.sample=48", "--set", "data.test_sample=16", "--out", folder),
    ]
    subprocess.run([str(part) for part in command], check=True, timeout=300, cwd=ROOT)
    return folder


def test_the_real_loop_labels_every_text_and_asks_all_again(finished: Path) -> None:
    found = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    first, second = found["rounds"]
    assert first["asked"] == 48
    assert second["asked"] == 48
    assert found["pool"]["final"]["coverage"] == 1.0
    assert found["pool"]["final"]["accuracy"] > 1.5 / 6


def test_the_real_student_predicts_without_the_llm(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("where is my parcel\nI want my money back\n", encoding="utf-8")
    command = [sys.executable, "-c", "from freeal.cli import main; main()", "predict", finished, tmp_path / "new.txt"]
    told = subprocess.run([str(p) for p in command], check=True, capture_output=True, text=True, timeout=120).stdout
    assert len(told.splitlines()) == 3


def test_the_real_llm_gives_the_probabilities_of_plain_reading() -> None:
    from freeal.config import LocalConfig
    from freeal.llm import Message, Request
    from freeal.llm.local import LocalLLM

    weights("qwen2.5-coder-0.5b")
    llm = LocalLLM(LocalConfig(model="qwen2.5-coder-0.5b", dtype="float32"))
    system = Message("system", "Sort messages: card lost, card late, or refund. Reply with one label.")
    texts = ("someone stole my card", "still no card in the post", "I want my money back, all of it, and soon", "hi")
    choices = ("card lost", "card late", "refund")
    requests = [Request((system, Message("user", text)), choices) for text in texts]
    packed = np.exp([reply.logprobs for reply in llm.complete(requests) if reply.logprobs])
    read = llm.reader.score_plain([llm.chats.tokens(r.messages) for r in requests], choices)
    plain = np.exp([each.logprobs for each in read])
    assert llm.packed
    assert np.abs(packed - plain).max() < 1e-4


def test_the_real_llm_in_eight_bits_says_nearly_the_same() -> None:
    from freeal.config import LocalConfig
    from freeal.llm import Message, Request
    from freeal.llm.local import LocalLLM

    folder = str(weights("qwen2.5-coder-0.5b"))
    exact, rough = (LocalLLM(LocalConfig(model=folder, device="cpu", dtype=dtype)) for dtype in ("float32", "int8"))
    system = Message("system", "Sort messages: card lost, card late, or refund. Reply with one label.")
    texts = ("someone stole my card", "still no card in the post", "I want my money back, all of it, and soon", "hi")
    requests = [Request((system, Message("user", text)), ("card lost", "card late", "refund")) for text in texts]
    said = [np.exp([reply.logprobs for reply in llm.complete(requests) if reply.logprobs]) for llm in (exact, rough)]
    assert rough.packed
    assert 0 < np.abs(said[0] - said[1]).max() < 0.2
    assert said[0].argmax(1).tolist() == said[1].argmax(1).tolist()


def test_the_real_llm_lists_names_by_which_candidates_are_told_apart(tmp_path: Path) -> None:
    from freeal.config import LinearConfig, LocalConfig
    from freeal.ledger import Ledger
    from freeal.lexicon import Lexicon, requests_for
    from freeal.llm.local import LocalLLM
    from freeal.student.embedders import EncoderEmbedder
    from freeal.student.linear import LinearStudent

    llm = LocalLLM(LocalConfig(model=str(weights("qwen2.5-coder-0.5b")), dtype="float32"))
    embedder = EncoderEmbedder(str(weights("all-minilm-l6-v2")))
    types = {"Disease": "a disease, a symptom, an adverse effect or an injury"}
    ill, well = ("epilepsy", "renal failure", "chest pain"), ("patients", "the second week", "intravenous infusion")
    words = (*ill, *well, "study", "mice", "plasma level", "ten minutes", "control group", "dose")

    def student() -> LinearStudent:
        return LinearStudent(LinearConfig(c=10.0, folds=2), ("Disease", "none"), 0, embedder)

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asked = requests_for(types, {}, 2, 0.9, 0)
        lexicon = Lexicon(tuple(types), asked, lambda: words, student, llm.complete, ledger, lambda event: None)
        proba = lexicon(np.tile([0.3, 0.7], (len(words), 1)), words, "round 0")
    assert proba[:3, 0].mean() > proba[3:, 0].mean() + 0.03
