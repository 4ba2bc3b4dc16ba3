"""What each part of the default is worth, set by set and in the mean. Interrupted, it goes on.

    python benchmarks/ablation.py --out runs/ablation                    # five sets, half an hour each, MA hours
    python benchmarks/ablation.py --out runs/ablation --only trec        # one data set; repeatable
    python benchmarks/ablation.py --out runs/ablation --table            # runs nothing: of what is there

Every set is an ordinary `freeal study --ablate` in OUT/SET, with a linear student; parts share the LLM's replies.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

CONFIGS = Path(__file__).parent.parent / "configs"
SETS = ("trec", "mr", "tweeteval-emotion", "subj", "ma")
SETTINGS = ("student.kind=linear", "demos.shots=4", "llm.model=qwen2.5-coder-0.5b")
MEASURES = {
    "pool": ("labels, pool", "differences"),
    "test": ("labels, test", "differences_test"),
    "student_test": ("student, test", "differences_student"),
}
"""Figures of study.json: what they are called, and where their differences are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--only", action="append", choices=SETS, metavar="SET", help="only this set; repeatable")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1000, help="of the pool and the test; default 1,000")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all; repeatable")
    parser.add_argument("--table", action="store_true", help="run nothing: the table of what is there")
    given = parser.parse_args()
    sets = given.only or SETS
    for name in () if given.table else sets:
        study(name, given.out / name, given.seeds, given.rows, given.set)
    kept = {name: given.out / name / "study.json" for name in sets}
    found = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in kept.items() if file.is_file()}
    if not found:
        raise SystemExit(f"{given.out}: no study of {', '.join(sets)}; without --table they are run")
    print("\n".join(table(found)))


def study(name: str, folder: Path, seeds: int, rows: int, more: list[str]) -> None:
    """The default and each of its parts, on one set."""
    words = ["-m", "freeal", "study", str(CONFIGS / f"{name}.yaml"), "--method", "default", "--ablate"]
    words += ["--seeds", str(seeds), "--out", str(folder)]
    for setting in (*SETTINGS, f"data.sample={rows}", f"data.test_sample={rows}", *more):
        words += ["--set", setting]
    print(shlex.join(words[1:]), flush=True)
    if subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL).returncode not in (0, 3):
        raise SystemExit(f"{folder}: the study failed; mend it and run the same command again")


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """What the default is right on, and the points lost without each part: on each set's pool, and in the mean."""
    head = ["without", *found, *(f"mean, {title}" for title, _ in MEASURES.values()), "calibration error", "calls"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    studied = {name: method for each in found.values() for name, method in each["methods"].items()}
    for part in (name for name, method in studied.items() if name == "default" or method["part"]):
        if part == "default":
            cells = [_figure(each, part, "pool") for each in found.values()]
            cells += [_mean_of(found, part, key) for key in MEASURES]
        else:
            cells = [_points(each["differences"].get(part)) for each in found.values()]
            for _, key in MEASURES.values():
                apart = [each[key][part] for each in found.values() if part in each[key]]
                cells.append(_points(mean(apart) if apart else None))
        cells += [_mean_of(found, part, "calibration"), _mean_of(found, part, "calls", ",.0f")]
        lines.append(f"| {part.removeprefix('default, ')} | {' | '.join(cells)} |")
    return lines


def _figure(study: dict[str, Any], part: str, key: str) -> str:
    there = study["methods"].get(part, {}).get(key)
    return f"{there['mean']:.3f}" if there else "–"


def _mean_of(found: dict[str, dict[str, Any]], part: str, key: str, form: str = ".3f") -> str:
    """Of a figure, over the sets that have it."""
    there = [figure["mean"] for each in found.values() if (figure := each["methods"].get(part, {}).get(key))]
    return f"{fmean(there):{form}}" if there else "–"


def mean(apart: list[dict[str, float]]) -> dict[str, float]:
    """Of independent differences, with its interval: half-widths add up as standard deviations do."""
    middle = fmean(each["mean"] for each in apart)
    half = math.hypot(*((each["high"] - each["low"]) / 2 for each in apart)) / len(apart)
    return {"mean": middle, "low": middle - half, "high": middle + half}


def _points(apart: dict[str, float] | None) -> str:
    """What the default has more, the other way round: what is lost, in points."""
    if not apart:
        return "–"
    lost = f"{-100 * apart['mean'] + 0.0:+.1f}"
    return f"**{lost}**" if apart["low"] > 0 or apart["high"] < 0 else lost


if __name__ == "__main__":
    main()
