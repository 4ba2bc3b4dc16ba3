"""Does the certificate hold? Simulated audits of kept runs with gold: how often the interval has the truth in it.

python benchmarks/audit_coverage.py runs/mr-… runs/trec-… --audits 1000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import beta

from freeal import build, config
from freeal.certificate import allocate, certify, draw, strata
from freeal.report import history
from freeal.types import argmax


def main() -> None:
    arguments = _arguments()
    for folder in arguments.runs:
        run = history.read(folder)
        settings = config.parse(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")), str(folder))
        _, corpus = build.inputs(settings, folder / "prompt.md")
        truth = corpus.in_order(run.ids).gold
        assert truth is not None, f"{folder}: its pool has no gold labels"
        right = argmax(run.last.posterior) == truth
        sure = np.nan_to_num(run.last.posterior.astype(np.float64)).max(axis=1)
        for rows in arguments.rows:
            held, width = simulate(right, sure, rows, arguments.audits)
            print(
                f"{folder.name}: {len(right):,} rows, {right.mean():.3f} right; {rows} labelled: holds in {held:,} of "
                f"{arguments.audits:,}, width {width:.3f} (simple sample, exact: {_simple(right.mean(), rows):.3f})",
                flush=True,
            )


def simulate(right: np.ndarray, sure: np.ndarray, rows: int, audits: int) -> tuple[int, float]:
    """How many intervals have the truth in them, and how wide they are in the mean."""
    stratum = strata(sure)
    sizes, wanted = np.bincount(stratum), allocate(rows, stratum, sure)
    held, widths = 0, []
    for seed in range(audits):
        drawn = draw(wanted, stratum, seed)
        found = certify([right[drawn[stratum[drawn] == h]] for h in range(len(sizes))], sizes)
        held += found.low <= right.mean() <= found.high
        widths.append(found.high - found.low)
    return held, float(np.mean(widths))


def _simple(share: float, rows: int) -> float:
    """Width of the Clopper-Pearson interval of as many rows drawn without regard to anything."""
    hits = share * rows
    return float(beta.ppf(0.975, hits + 1, rows - hits) - beta.ppf(0.025, hits, rows - hits + 1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rows", nargs="+", type=int, default=[50, 100, 300])
    parser.add_argument("--audits", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
