"""The command line, called in this process, and a small job for it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from freeal.cli import main

WORDS = {"good": ["fine", "lovely"], "bad": ["awful", "dull"]}
"""Two labels, and words that give them away."""


@dataclass(frozen=True)
class Said:
    """What one call of the command line gave back."""

    code: int
    out: str
    err: str


def freeal(*words: object) -> Said:
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["freeal", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as stop:
        code = 0 if stop.code is None else int(stop.code)
    finally:
        sys.argv = before
    return Said(code, out.getvalue(), err.getvalue())


def opinions(count: int, labels: Mapping[str, Sequence[str]] = WORDS) -> list[dict[str, str]]:
    """Rows `r0`, `r1`, … with a text and its gold label, the labels in turn."""
    words = [word for pair in zip(*labels.values(), strict=True) for word in pair]
    names = list(labels)
    return [
        {"id": f"r{i}", "text": f"film {i} was {words[i % len(words)]}", "gold": names[i % 2]} for i in range(count)
    ]


def films(
    folder: Path,
    pool: Sequence[Mapping[str, str]],
    test: Sequence[Mapping[str, str]] = (),
    labels: Mapping[str, Sequence[str]] = WORDS,
    data: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A configuration in `folder`, with data and prompt: a scripted LLM that errs now and then, a linear student."""
    for name, rows in (("pool", pool), ("test", test)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    front = yaml.safe_dump({"labels": list(labels)})
    turns = "## user\nFilm: {{ text }}\n\n## assistant\n{{ label }}\n"
    (folder / "prompt.md").write_text(f"---\n{front}---\n{turns}", encoding="utf-8")
    chosen = {
        "rounds": 2, "prompt": "prompt.md", "data": {"pool": "pool.jsonl", **(data or {})},
        "llm": {"kind": "scripted", "keywords": dict(labels), "noise": 0.2}, "embedder": {"kind": "tfidf"},
        "student": {"kind": "linear"}, "stop": {"min_change": 0.0}, **settings,
    }  # fmt: skip
    (folder / "films.yaml").write_text(yaml.safe_dump(chosen), encoding="utf-8")
    return folder / "films.yaml"
