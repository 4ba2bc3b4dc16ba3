"""What freeal's client adds to a server's own time: ledger on, against `AsyncOpenAI` and a semaphore, one run.

Two loopback servers that answer at once and after 200 ms. Prints wall time against the ideal, requests a second
and CPU seconds for 1,000 requests of this process, ledger thread included.

    python benchmarks/client_overhead.py --requests 2000 --concurrency 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai

from freeal.annotator import Annotator
from freeal.config import OpenAIConfig
from freeal.events import ignore
from freeal.ledger import Ledger
from freeal.llm.openai_api import OpenAILLM
from freeal.prompts import load
from freeal.types import Example, Pool

ROOT = Path(__file__).parent.parent
WORDS = {"negative": ["dull"], "positive": ["fine"]}


def main() -> None:
    arguments = _arguments()
    texts = [f"film {i} was {'fine' if i % 2 else 'dull'}" for i in range(arguments.requests)]
    found = {}
    for latency in (0.2, 0.0):
        ideal = latency * arguments.requests / arguments.concurrency
        ways = {"freeal": _freeal, "AsyncOpenAI": _plain}
        for name, ask in ways.items():
            with _server(latency) as url:
                ask(url, texts[: arguments.concurrency], arguments.concurrency)  # imports
            with _server(latency) as url:
                wall, cpu = ask(url, texts, arguments.concurrency)
            found[f"{name}, {latency * 1000:.0f} ms"] = {
                "seconds": round(wall, 2),
                "of_the_ideal": round(wall / ideal, 3) if ideal else None,
                "requests_per_second": round(len(texts) / wall),
                "cpu_seconds_per_1000": round(1000 * cpu / len(texts), 3),
            }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, figures in found.items():
        ideal_told = f"{figures['of_the_ideal']:.2f}x the ideal, " if figures["of_the_ideal"] else ""
        print(
            f"{name:24} {figures['seconds']:6.2f} s  {ideal_told}{figures['requests_per_second']} requests/s,"
            f" {figures['cpu_seconds_per_1000']:.2f} CPU s for 1,000"
        )
    for latency in ("200 ms", "0 ms"):
        ours, theirs = (found[f"{name}, {latency}"]["cpu_seconds_per_1000"] for name in ("freeal", "AsyncOpenAI"))
        print(f"CPU at {latency}: {ours / theirs:.2f}x that of AsyncOpenAI")


def _freeal(url: str, texts: list[str], concurrency: int) -> tuple[float, float]:
    """From the first of the requests on: what the server understands was found out before."""
    import numpy as np

    prompt = load(ROOT / "prompts" / "mr.md")
    pool = Pool(tuple(Example(str(i), text) for i, text in enumerate(texts)))
    llm = OpenAILLM(OpenAIConfig(model="tiny", base_url=url, concurrency=concurrency))
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        annotator = Annotator(prompt, llm, ledger, ignore)
        annotator.prepare()
        rows = np.arange(len(pool))
        with _timed() as taken:
            answers = annotator.annotate(pool, rows, [()] * len(rows), "round 0")
        assert not np.isnan(answers.proba).any()
    return taken[0], taken[1]


def _plain(url: str, texts: list[str], concurrency: int) -> tuple[float, float]:
    """What one would write first: a semaphore, the same question, nothing kept."""
    prompt = load(ROOT / "prompts" / "mr.md")

    async def work() -> tuple[float, float]:
        places = asyncio.Semaphore(concurrency)
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:

            async def ask(text: str) -> str | None:
                messages = [{"role": m.role, "content": m.content} for m in prompt.render(Example("", text))]
                async with places:
                    reply = await client.chat.completions.create(
                        model="tiny", messages=messages, max_tokens=36, temperature=0.0, top_p=1.0, seed=0,
                        logprobs=True, top_logprobs=5,
                        extra_body={"structured_outputs": {"choice": list(prompt.replies)}},
                    )  # fmt: skip
                    return reply.choices[0].message.content

            with _timed() as taken:
                await asyncio.gather(*(ask(text) for text in texts))
            return taken[0], taken[1]

    return asyncio.run(work())


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Wall and CPU seconds of the block, once it is done."""
    taken: list[float] = []
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    yield taken
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    taken += [wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime]


@contextmanager
def _server(latency: float) -> Iterator[str]:
    """A faultllm in a process of its own, so that its CPU is not counted here."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        plan.write_text(json.dumps({"keywords": WORDS, "latency": latency}), encoding="utf-8")
        command = [sys.executable, "-m", "freeal.testing.faultllm", "--plan", str(plan), "--dialect", "vllm"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
