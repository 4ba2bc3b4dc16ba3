"""The table of what freeal is worth: study after study on real data sets, and their means. Interrupted, it goes on.

    python benchmarks/results.py --out runs/results                        # two cores: many hours
    python benchmarks/results.py --out runs/results --only trec --seeds 1  # one data set; one study of it: trec-1.5b
    python benchmarks/results.py --out runs/results --jobs 8               # with a GPU, which many studies share
    python benchmarks/results.py --out runs/results --scale full --jobs 8

Every study is an ordinary `freeal study` in OUT/NAME; table.md and results.json are written anew after each. Data sets
are those of configs/ that lie in $FREEAL_SHARED.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from freeal import study as studies
from freeal.errors import FreealError
from freeal.report import study as pages

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL, LARGE = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
PAPER = ("student.epochs=12", "student.learning_rate=1.0e-4")
"""FreeAL's 50 epochs at 3e-5 take hours on two cores: fewer at a higher rate are no reproduction of it."""
PAPER_FOR_WORDS = ("student.epochs=12", "student.learning_rate=3.0e-4")
ENTITIES = ("conll03", "bc5cdr-chem", "bc5cdr-disease")


@dataclass(frozen=True)
class Plan:
    """One study: a configuration, an LLM, a student."""

    config: str
    llm: str | None
    seeds: int
    student: str = "all-minilm-l6-v2"

    @property
    def name(self) -> str:
        reader = {SMALL: "0.5b", LARGE: "1.5b", None: "recorded"}[self.llm]
        return f"{self.config}-{reader}" + ("" if "minilm" in self.student else "-mpnet")

    def overrides(self, rows: int, shots: int) -> list[str]:
        settings = [f"demos.shots={shots}", f"student.model={self.student}"]
        settings += [] if self.config in ENTITIES else ["student.kind=transformer"]
        if self.llm:
            settings += [f"data.sample={rows}", f"data.test_sample={rows}", f"llm.model={self.llm}"]
        return settings


def plans(scale: str) -> list[Plan]:
    """What is studied, the quickest first."""
    if scale == "full":
        sets = ("trec", "mr", "subj", "tweeteval-emotion", "sst2", "banking77", "ma")
        return [*(Plan(each, llm, 3) for each in sets for llm in (SMALL, LARGE)), Plan("mr-gpt35", None, 3)]
    return [
        *(Plan(each, SMALL, 2) for each in ("trec", "tweeteval-emotion", "mr", "subj", "ma")),
        *(Plan(each, LARGE, 1) for each in ("trec", "mr")),
        *(Plan(each, SMALL, 2, "all-mpnet-base-v2") for each in ("trec", "mr")),
        *(Plan(each, llm, 2) for each in ENTITIES for llm in (SMALL, LARGE)),
        Plan("mr-gpt35", None, 3),
    ]


def run(
    plan: Plan,
    folder: Path,
    overrides: list[str],
    seeds: int,
    names: list[str],
    paper: Sequence[str],
    reuse: list[str],
) -> None:
    """The study, method by method: freeal-paper has settings of its own, so that it is asked for by itself."""
    config = str(CONFIGS / f"{plan.config}.yaml")
    ours = [name for name in names if name != "freeal-paper"]
    if ours:
        _study(config, folder, ours, seeds, overrides, reuse)
    if "freeal-paper" in names and plan.llm:
        kept = [str(path.parent) for path in sorted(folder.glob("few-shot/seed-*/summary.json"))]
        _study(config, folder, ["freeal-paper"], seeds, [*overrides, *paper], [*kept, *reuse])


def _study(config: str, folder: Path, names: list[str], seeds: int, overrides: list[str], reuse: list[str]) -> None:
    words = [sys.executable, "-m", "freeal", "study", config, "--seeds", str(seeds), "--out", str(folder)]
    for option, values in (("--method", names), ("--set", overrides), ("--reuse", reuse)):
        words += [word for value in values for word in (option, value)]
    print(shlex.join(words[2:]), flush=True)
    if subprocess.run(words, stdout=subprocess.DEVNULL).returncode not in (0, 3):
        raise FreealError(f"{folder}: the study failed; mend it and run the same command again")


def collected(folder: Path, seeds: int, command: str) -> dict[str, Any] | None:
    """All methods of a study that have every seed, in one study.json; None before there are two."""
    there = [
        method for method in (*studies.METHODS, *studies.ablated())
        if all((studies.run_of(folder, method, seed) / "summary.json").is_file() for seed in range(seeds))
    ]  # fmt: skip
    if len(there) < 2:
        return None
    found = studies.collect(folder, there, range(seeds), command, {})
    pages.write(folder, found)
    return found


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Each study's methods, and below them the means that the project is judged by."""
    columns = ("pool", "test", "student_test", "calls", "calibration")
    head = ["study", "method", *(pages.COLUMNS[key] for key in columns), "default has more right, pool"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|---|---|"]
    for name, study in found.items():
        for method, figures in study["methods"].items():
            cells = [pages.told(figures[key], key) if key in figures else "–" for key in columns]
            apart = study["differences"].get(method) if "default" in study["methods"] else None
            better = "–"
            if apart:
                better = f"{100 * apart['mean']:+.1f} ({100 * apart['low']:+.1f} to {100 * apart['high']:+.1f})"
            lines.append(f"| {name} | {method} | {' | '.join(cells)} | {better} |")
    for measure in sorted({study["measure"] for study in found.values()}):
        lines += [
            "",
            f"{measure}:",
            "",
            *means({n: study for n, study in found.items() if study["measure"] == measure}),
        ]
    return lines


def means(found: dict[str, dict[str, Any]]) -> list[str]:
    """Averaged over the studies that have both methods."""
    lines = []
    for other in ("freeal-paper", "zero-shot", "calibrated", "distilled"):
        both = [study["methods"] for study in found.values() if {"default", other} <= set(study["methods"])]
        for key, what in (
            ("pool", "labels on the pool"),
            ("test", "labels on the test"),
            ("student_test", "student on the test"),
        ):
            gains = [
                100 * (study["default"][key]["mean"] - study[other][key]["mean"])
                for study in both if key in study["default"] and key in study[other]
            ]  # fmt: skip
            if gains:
                mean, count = sum(gains) / len(gains), len(gains)
                lines.append(f"- default over {other}, {what}: {mean:+.1f} points in the mean of {count} studies")
        calls = [study["default"]["calls"]["mean"] / study[other]["calls"]["mean"] for study in both]
        if calls:
            lines.append(f"- calls of default for one of {other}: {sum(calls) / len(calls):.2f}")
    against = {name: study["differences"] for name, study in found.items() if "default" in study["methods"]}
    below = [name for name, apart in against.items() if apart.get("zero-shot", {}).get("high", 1.0) < 0]
    return [*lines, f"- default significantly below zero-shot on the pool: {', '.join(below) or 'nowhere'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--scale", choices=("cores", "full"), default="cores")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this configuration or study; repeatable")
    parser.add_argument("--method", action="append", metavar="NAME", help="only this method; repeatable")
    parser.add_argument("--rows", type=int, help="of the pool and the test; default 1,000, full 2,000")
    parser.add_argument("--seeds", type=int, help="default: as planned")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many studies at once; default: 1")
    parser.add_argument("--reuse", type=Path, metavar="OUT", help="kept replies of earlier results are used, too")
    parser.add_argument("--table", action="store_true", help="run nothing: the table of what is there")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error("--jobs: at least one study at once")
    rows, shots = given.rows or {"cores": 1000, "full": 2000}[given.scale], {"cores": 4, "full": 10}[given.scale]
    chosen = [plan for plan in plans(given.scale) if not given.only or {plan.config, plan.name} & set(given.only)]
    names = given.method or [method.name for method in studies.METHODS]
    found: dict[str, dict[str, Any]] = {}

    failed = Event()

    def done(plan: Plan) -> Plan:
        if given.table or failed.is_set():
            return plan
        earlier = sorted((given.reuse / plan.name).glob("*/seed-*/summary.json")) if given.reuse else []
        before = [str(path.parent) for path in earlier]
        paper = () if given.scale == "full" else PAPER_FOR_WORDS if plan.config in ENTITIES else PAPER
        seeds = given.seeds or plan.seeds
        try:
            run(plan, given.out / plan.name, plan.overrides(rows, shots), seeds, names, paper, before)
        except FreealError:
            failed.set()
            raise
        return plan

    with ThreadPoolExecutor(given.jobs) as pool:
        studied = [pool.submit(done, plan) for plan in chosen]
        try:
            for future in as_completed(studied):
                plan = future.result()
                if study := collected(given.out / plan.name, given.seeds or plan.seeds, shlex.join(sys.argv)):
                    found[plan.name] = study
                    found = {plan.name: found[plan.name] for plan in chosen if plan.name in found}
                    (given.out / "results.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
                    (given.out / "table.md").write_text("\n".join(table(found)) + "\n", encoding="utf-8")
        except FreealError as error:
            failed.set()
            raise SystemExit(str(error)) from error
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
