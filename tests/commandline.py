"""The command line, called in this process, and a small job for it."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
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


def undocumented(run: Path) -> set[str]:
    """Keys of a run's summary.json that docs/summary.md does not have in code spans; names and causes are no keys."""
    told = (Path(__file__).parent.parent / "docs" / "summary.md").read_text(encoding="utf-8").split("\n# study.json")[0]
    known = {"data", *re.findall(r"(?:data\.)?\w+", " ".join(re.findall(r"`[^`]+`", told)))}
    return set(_keys(json.loads((run / "summary.json").read_text(encoding="utf-8")))) - known


def _keys(found: object, within: str = "") -> Iterator[str]:
    if isinstance(found, list):
        for each in found:
            yield from _keys(each)
    if isinstance(found, dict):
        for key, value in found.items():
            yield within + key
            named = list(value.values()) if key in _BY_NAME and isinstance(value, dict) else value
            yield from _keys(named, "data." if key == "data" else "")


_BY_NAME = {"by_label", "by_type", "dropped", "labels"}
"""Keys of objects whose own keys are labels, types or causes."""


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
