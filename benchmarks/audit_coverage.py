"""Does the certificate hold? Simulated audits of kept runs with gold: how often the interval has the truth in it.

python benchmarks/audit_coverage.py runs/mr-… runs/trec-… --audits 1000
python benchmarks/audit_coverage.py --hidden --audits 500      # made-up pools: all errors among the surest rows
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
        right = argmax(run.final.posterior) == truth
        sure = np.nan_to_num(run.final.posterior.astype(np.float64)).max(axis=1)
        for rows in arguments.rows:
            held, width = simulate(right, sure, rows, arguments.audits)
            print(
                f"{folder.name}: {len(right):,} rows, {right.mean():.3f} right; {rows} labelled: holds in {held:,} of "
                f"{arguments.audits:,}, width {width:.3f} (simple sample, exact: {_simple(right.mean(), rows):.3f})",
                flush=True,
            )
    if arguments.hidden:
        hidden(arguments.rows, arguments.audits)


def hidden(rows: Sequence[int], audits: int, pools: int = 4) -> None:
    """The weak spot: pools of 1,000 rows whose errors are all in the fifth that the labels are surest of."""
    shares = []
    for wrong in (0.05, 0.1, 0.2, 0.3, 0.5):
        for labelled in rows:
            held = [simulate(*_made_up(wrong, seed), labelled, audits)[0] / audits for seed in range(pools)]
            shares += held
            told = ", ".join(f"{share:.3f}" for share in held)
            print(f"{wrong:.0%} of the surest fifth wrong; {labelled} labelled: holds in {told}", flush=True)
    print(f"{len(shares)} pools: {min(shares):.3f} to {max(shares):.3f}, mean {np.mean(shares):.3f}")


def _made_up(wrong: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(1000,) which labels are right, and how sure they are."""
    rng = np.random.default_rng(seed)
    sure = np.r_[rng.uniform(0.5, 0.9, 800), rng.uniform(0.99, 1.0, 200)]
    return np.r_[np.ones(800, bool), rng.random(200) >= wrong], sure


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
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--hidden", action="store_true")
    parser.add_argument("--rows", nargs="+", type=int, default=[50, 100, 300])
    parser.add_argument("--audits", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
