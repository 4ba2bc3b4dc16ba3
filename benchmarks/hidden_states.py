"""Texts per second of the vectors that a language model gives, beside the ways one would write it first: one run.

(a) one text at a time, what all prompts begin with read once; (b) plain code, `model(ids, output_hidden_states=True)`
of each whole prompt. Prints texts per second, ratios, and the largest difference of any vector's numbers.

    FREEAL_SHARED=../shared python benchmarks/hidden_states.py --rows 128
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from freeal import prompts
from freeal.config import LocalConfig
from freeal.llm.states import StatesEmbedder
from freeal.types import Example, FloatArray

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16", "int8"])
    parser.add_argument("--rows", type=int, default=128, help="texts that are read together")
    parser.add_argument("--few", type=int, default=32, help="texts that are read one at a time, and whole")
    parser.add_argument("--depth", type=float, default=0.7)
    given = parser.parse_args()
    prompt = prompts.load(ROOT / "prompts" / "mr.md")
    rows = Path(os.environ["FREEAL_SHARED"], "data", "mr", "test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [str(json.loads(row)["text"]) for row in rows[: given.rows]]
    made = StatesEmbedder(LocalConfig(model=given.model, dtype=given.dtype), prompt, given.depth)
    made.encode(["one to warm up"])

    def whole(some: list[str]) -> FloatArray:
        for text in some:
            tokens = made.llm.chats.tokens(prompt.render(Example("", text)))
            with torch.inference_mode():
                made.llm.reader.model(
                    torch.tensor([tokens], device=made.llm.reader.device), output_hidden_states=True, logits_to_keep=1
                )
        return np.zeros((0, 0), np.float32)

    ways: dict[str, tuple[Callable[[list[str]], FloatArray], int]] = {
        "hidden_states": (made.encode, len(texts)),
        "(a) one at a time": (lambda some: np.concatenate([made.encode([text]) for text in some]), given.few),
        "(b) whole prompts": (whole, given.few),
    }
    print(f"{given.model}, {made.llm.reader.dtype}, {len(texts)} texts of MR, {torch.get_num_threads()} threads")
    ours, rate = np.zeros(0), 0.0
    for name, (read, count) in ways.items():
        started = time.perf_counter()
        vectors = read(texts[:count])
        theirs = count / (time.perf_counter() - started)
        if not rate:
            ours, rate = vectors, theirs
        apart = f"   max difference {np.abs(vectors - ours[:count]).max():.1e}" if vectors.size else ""
        print(f"  {name:20} {theirs:7.2f} texts/s   hidden_states is {rate / theirs:.2f}×{apart}")


if __name__ == "__main__":
    main()
