"""A run of many rows against a server, killed with SIGKILL at random moments and resumed: what was paid twice?

Prints the requests that the server billed more than once, and whether the labels are those of an undisturbed run.

    python benchmarks/kill_resume.py --rows 10000 --kills 5
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from freeal.testing.faultllm import serving
from freeal.testing.plans import Plan

FREEAL = [sys.executable, "-c", "from freeal.cli import main; main()"]
WORDS = {"good": ["fine"], "bad": ["dull"]}
CONCURRENCY = 64


def main() -> None:
    arguments = _arguments()
    rng = np.random.default_rng(arguments.seed)
    with (
        tempfile.TemporaryDirectory() as place,
        serving(Plan(keywords=WORDS, pattern=re.compile(r"film (\d+)"))) as server,
    ):
        folder = Path(place)
        config = _configure(folder, server.url, arguments.rows)
        started = time.perf_counter()
        _finish([*FREEAL, "run", str(config), "--out", str(folder / "straight")])
        whole = time.perf_counter() - started
        probe = server.stats().requests - arguments.rows
        print(f"undisturbed: {arguments.rows:,} rows in {whole:.1f} s, {probe} requests of the probe")
        words = ["run", str(config), "--out", str(folder / "killed")]
        before = server.stats()
        for kill in range(arguments.kills):
            process = subprocess.Popen([*FREEAL, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(4 + float(rng.uniform(0, max(1.0, (whole - 4) / arguments.kills))))
            process.kill()
            process.wait()
            words = ["run", "--resume", str(folder / "killed")]
            print(f"kill {kill + 1}: {server.stats().requests - before.requests:,} requests so far")
        _finish([*FREEAL, *words])
        twice = server.stats().requests - before.requests - arguments.rows - probe
        same = (folder / "straight/labels.parquet").read_bytes() == (folder / "killed/labels.parquet").read_bytes()
        print(f"asked more than once: {twice} requests in {arguments.kills} kills (at most {CONCURRENCY} a kill)")
        print(f"labels identical: {same}")


def _configure(folder: Path, url: str, rows: int) -> Path:
    lines = (json.dumps({"id": f"r{i}", "text": f"film {i} was {'fine' if i % 2 else 'dull'}"}) for i in range(rows))
    (folder / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prompt = "---\nlabels: [good, bad]\n---\n## user\n{{ text }}\n\n## assistant\n{{ label }}\n"
    (folder / "prompt.md").write_text(prompt, encoding="utf-8")
    settings = {
        "prompt": "prompt.md", "data": {"pool": "pool.jsonl"}, "rounds": 1, "student": {"kind": "none"},
        "demos": {"kind": "none"}, "embedder": {"kind": "tfidf"},
        "llm": {"kind": "openai", "model": "tiny", "base_url": url, "concurrency": CONCURRENCY},
    }  # fmt: skip
    (folder / "films.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder / "films.yaml"


def _finish(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
