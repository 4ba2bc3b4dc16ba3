"""A pool, a server that fails as told, and the command line between them."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commandline
import pytest
import yaml
from commandline import Said

import freeal
from freeal.cli.status import account
from freeal.testing.faultllm import Served, serving
from freeal.testing.plans import Plan, Rule

pytest.importorskip("openai", reason="the package openai is not installed")

WORDS = {"good": ["fine", "lovely"], "bad": ["awful", "dull"]}
SENTINEL = "sk-SENTINEL-4f1d"
COMMAND = [sys.executable, "-c", "from freeal.cli import main; main()"]
ROWS = 100
PACKAGE = Path(freeal.__file__).parent.parent


def text_of(i: int) -> str:
    words = [word for pair in zip(*WORDS.values(), strict=True) for word in pair]
    return f"film {i} was {words[i % 4]}"


@dataclass
class Bench:
    """One data set, one run directory, one server."""

    folder: Path
    server: Served

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def configure(self, rows: Sequence[dict[str, Any]] | None = None, **settings: Any) -> Path:
        """Write pool, prompt and configuration; `settings` are merged into it, those of the LLM by `llm`."""
        rows = rows if rows is not None else [{"id": f"r{i}", "text": text_of(i)} for i in range(ROWS)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.folder / "pool.jsonl").write_text(lines, encoding="utf-8")
        if not (self.folder / "prompt.md").exists():
            self.prompt("good", "bad")
        llm = {
            "kind": "openai", "model": "tiny", "base_url": self.server.url, "concurrency": 8, "timeout": 2.0,
            "attempts": 3, "key_env": "OPENAI_API_KEY", "server_wait": 10.0, "max_wait": 5.0, **settings.pop("llm", {}),
        }  # fmt: skip
        base = {
            "prompt": "prompt.md", "data": {"pool": "pool.jsonl"}, "rounds": 1, "student": {"kind": "none"},
            "demos": {"kind": "none"}, "embedder": {"kind": "tfidf"},
        }  # fmt: skip
        path = self.folder / "films.yaml"
        path.write_text(yaml.safe_dump({**base, **settings, "llm": llm}), encoding="utf-8")
        return path

    def prompt(self, *labels: str) -> None:
        named = json.dumps(list(labels), ensure_ascii=False)
        source = f"---\nlabels: {named}\n---\n## user\n{{{{ text }}}}\n\n## assistant\n{{{{ label }}}}\n"
        (self.folder / "prompt.md").write_text(source, encoding="utf-8")

    def run(self, *words: object) -> Said:
        """The command line in this process."""
        return commandline.freeal(*words)

    def begin(self, **settings: Any) -> Said:
        return self.run("run", self.configure(**settings), "--out", self.run_folder)

    def resume(self, *words: object) -> Said:
        return self.run("run", "--resume", self.run_folder, *words)

    def start(self, *words: object, largest_file: int | None = None, **environment: str) -> subprocess.Popen[str]:
        """The command line in a process of its own, which hears Ctrl-C even where this one does not (nohup)."""

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        return subprocess.Popen(
            [*COMMAND, *map(str, words)], env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare,
        )  # fmt: skip

    def labels(self, folder: Path | None = None) -> bytes:
        return ((folder or self.run_folder) / "labels.parquet").read_bytes()

    def problems(self) -> dict[str, str]:
        """id of the example -> why it has no label."""
        with connected(self.run_folder) as ledger:
            found = ledger.execute("SELECT uid, problem FROM requests WHERE problem IS NOT NULL")
            return dict(found.fetchall())

    def check(self, total: int = ROWS) -> dict[str, Any]:
        """What must hold after everything: accounting, a whole ledger, no secret, nothing half written."""
        found = account(self.run_folder)
        assert sum(found["rows"].values()) == found["total"] == total
        with connected(self.run_folder) as ledger:
            assert ledger.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            spent = ledger.execute("SELECT SUM(cost) FROM requests").fetchone()[0] or 0.0
        assert found["usage"]["cost"] == pytest.approx(spent, abs=1e-6)
        for path in self.run_folder.rglob("*"):
            if path.is_file():
                assert path.suffix != ".tmp", path
                assert SENTINEL.encode() not in path.read_bytes(), path
                if path.suffix == ".json":
                    json.loads(path.read_text(encoding="utf-8"))
        return found


@contextmanager
def connected(folder: Path) -> Iterator[sqlite3.Connection]:
    ledger = sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)
    try:
        yield ledger
    finally:
        ledger.close()


def plan(*rules: Rule, rows: int = ROWS, **more: Any) -> Plan:
    """Answers by keywords; rows are known by their ids."""
    return Plan(rules, keywords=WORDS, rows={text_of(i): f"r{i}" for i in range(rows)}, **more)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose server answers well until it is told otherwise."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with serving(plan(), "vllm") as server:
        yield Bench(tmp_path, server)


@pytest.fixture
def openai_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The same with the manners of OpenAI: unknown fields are refused."""
    monkeypatch.setenv("OPENAI_API_KEY", SENTINEL)
    with serving(plan(), "openai") as server:
        yield Bench(tmp_path, server)
