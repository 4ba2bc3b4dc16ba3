"""Rows per second of kind `local`, beside the ways one would write it first: same model, same rows, one run.

(a) one prompt at a time; (b) plain padded batches of 16, `model(**batch).logits[:, -1]`; (b') the same for experts,
who have the logits of the last place alone computed; and with `--llama-cpp GGUF` (c) llama.cpp, one sequence, the
common prefix kept, its weights four bits wide; with `--int8` (d) kind `local` itself with `dtype: int8`. Each
zero-shot and with ten fixed demonstrations. Prints rows per second, ratios, and the largest difference of any label
probability.

    FREEAL_SHARED=../shared python benchmarks/local_scorer.py --rows 96
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freeal import prompts
from freeal.config import LocalConfig
from freeal.llm import Request
from freeal.llm.local import LocalLLM
from freeal.types import Demonstration, Example

BATCH = 16
PROMPTS = {"mr": "mr-described.md", "trec": "trec.md"}
SHOTS = 10
ROOT = Path(__file__).parent.parent


def main() -> None:
    arguments = _arguments()
    prompt = prompts.load(ROOT / "prompts" / PROMPTS[arguments.data])
    texts = _texts(arguments.data, arguments.rows + SHOTS)
    labels = list(prompt.labels)
    shown = [Demonstration(text, labels[i % len(labels)]) for i, text in enumerate(texts[:SHOTS])]
    llm = LocalLLM(LocalConfig(model=arguments.model, dtype=arguments.dtype))
    assert llm.packed, "this model cannot be read packed"
    found: dict[str, Any] = {"model": arguments.model, "dtype": llm.reader.dtype, "rows": arguments.rows}
    for name, demos in (("zero-shot", []), (f"{SHOTS} fixed demonstrations", shown)):
        chats = [prompt.render(Example(str(i), text), demos) for i, text in enumerate(texts[SHOTS:])]
        found[name] = _measure(llm, [Request(chat, prompt.replies) for chat in chats], arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    rows = f"{found['rows']} rows of {arguments.data.upper()}"
    print(f"{found['model']}, {found['dtype']}, {rows}, {torch.get_num_threads()} threads")
    for name, figures in found.items():
        if isinstance(figures, dict):
            print(f"\n{name} ({figures['tokens']:.0f} tokens a prompt)")
            for way, result in figures["ways"].items():
                apart = f"  max difference {result['apart']:.1e}" if result["apart"] is not None else ""
                print(f"  {way:28} {result['rows_per_second']:7.2f} rows/s   local is {result['ratio']:.2f}×{apart}")


def _measure(llm: LocalLLM, requests: Sequence[Request], arguments: argparse.Namespace) -> dict[str, Any]:
    tokens = [llm.chats.tokens(request.messages) for request in requests]
    choices = requests[0].choices
    ways: dict[str, tuple[Callable[[int], list[Any]], int]] = {
        "local": (lambda n: _answered(llm, requests[:n]), len(requests)),
        "(a) one at a time": (lambda n: _plain(llm, tokens[:n], choices), min(arguments.few, len(tokens))),
    }
    some = min(arguments.few * 2, len(tokens))
    ways["(b) padded batches"] = (lambda n: _padded(llm, tokens[:n], choices), some)
    ways["(b') the last logits alone"] = (lambda n: _padded(llm, tokens[:n], choices, logits_to_keep=1), some)
    if arguments.llama_cpp:
        ways["(c) llama.cpp"] = (_llama_cpp(arguments.llama_cpp, tokens, llm, choices), len(tokens))
    if arguments.int8:
        rounded = LocalLLM(LocalConfig(model=arguments.model, dtype="int8"))
        rounded.complete(requests[:2])
        ways["(d) local, eight bits"] = (lambda n: _answered(rounded, requests[:n]), len(requests))
    llm.complete(requests[:2])
    results, ours = {}, np.zeros(0)
    for name, (score, count) in ways.items():
        started = time.perf_counter()
        proba = _normalised(score(count))
        rate = count / (time.perf_counter() - started)
        if name == "local":
            ours, ours_rate = proba, rate
        apart = None if name == "local" else float(np.abs(proba - ours[:count]).max())
        results[name] = {"rows_per_second": rate, "ratio": ours_rate / rate, "apart": apart}
    return {"tokens": float(np.mean([len(t) for t in tokens])), "ways": results}


def _answered(llm: LocalLLM, requests: Sequence[Request]) -> list[Any]:
    """As a run asks: chunk by chunk."""
    chunk = llm.capabilities.chunk
    replies = [reply for i in range(0, len(requests), chunk) for reply in llm.complete(requests[i : i + chunk])]
    return [reply.logprobs for reply in replies]


def _plain(llm: LocalLLM, prompts_: Sequence[Sequence[int]], choices: tuple[str, ...]) -> list[list[float]]:
    return [each.logprobs for each in llm.reader.score_plain(prompts_, choices)]


def _padded(
    llm: LocalLLM, prompts_: Sequence[Sequence[int]], choices: tuple[str, ...], **how: int
) -> list[list[float]]:
    """What most code does: whole prompts, sixteen at a time, padded to the longest of them."""
    first = [llm.chats.reply_tokens(choice)[0] for choice in choices]
    scores = []
    for start in range(0, len(prompts_), BATCH):
        some = prompts_[start : start + BATCH]
        width = max(map(len, some))
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in some], device=llm.reader.device)
        attends = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in some], device=llm.reader.device)
        places = (attends.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            logits = llm.reader.model(
                input_ids=ids, attention_mask=attends, position_ids=places, use_cache=False, **how
            ).logits[:, -1]
        scores += logits.float().log_softmax(-1)[:, first].tolist()
    return scores


def _llama_cpp(gguf: Path, prompts_: Sequence[Sequence[int]], llm: LocalLLM, choices: tuple[str, ...]) -> Any:
    """One sequence at a time; what a prompt shares with the one before stays in the cache."""
    from llama_cpp import Llama

    model = Llama(str(gguf), n_ctx=2048, logits_all=False, verbose=False, n_threads=torch.get_num_threads())
    first = [llm.chats.reply_tokens(choice)[0] for choice in choices]

    def score(count: int) -> list[list[float]]:
        scores, before = [], []
        for prompt in prompts_[:count]:
            same = next((i for i, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), 0)
            model.n_tokens = same
            model.eval(list(prompt[same:]))
            logits = np.ctypeslib.as_array(model._ctx.get_logits_ith(-1), shape=(model.n_vocab(),))
            scores.append(torch.tensor(logits).log_softmax(-1)[first].tolist())
            before = list(prompt)
        return scores

    return score


def _normalised(logprobs: Sequence[Sequence[float]]) -> np.ndarray:
    weights = np.exp(np.array(logprobs, np.float64))
    return weights / weights.sum(axis=1, keepdims=True)


def _texts(data: str, count: int) -> list[str]:
    shared = Path(os.environ.get("FREEAL_SHARED", ROOT / ".." / "shared"))
    lines = (shared / "data" / data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = np.random.default_rng(0).permutation(len(lines))[:count]
    return [json.loads(lines[i])["text"] for i in chosen]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--data", choices=PROMPTS, default="mr")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--few", type=int, default=16, help="rows for the slow ways (twice as many for batches)")
    parser.add_argument("--llama-cpp", type=Path, metavar="GGUF", help="the same model as a GGUF file")
    parser.add_argument("--int8", action="store_true", help="kind `local` in eight bits, too")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
