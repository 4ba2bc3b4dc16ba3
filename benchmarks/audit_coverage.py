"""Does the certificate hold? Simulated audits of kept runs with gold: how often the interval has the truth in it.

python benchmarks/audit_coverage.py runs/mr-… runs/trec-… --audits 1000
python benchmarks/audit_coverage.py --made-up   # pools with calibrated, overconfident, random probabilities
python benchmarks/audit_coverage.py --hidden    # pools with all errors among the surest rows
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
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
    if arguments.made_up:
        made_up(("calibrated", "overconfident", "random"), (0.02, 0.05, 0.1, 0.2, 0.3), arguments)
    if arguments.hidden:
        made_up(("hidden",), (0.05, 0.1, 0.2, 0.3, 0.5), arguments)


def made_up(kinds: Sequence[str], errors: Sequence[float], arguments: argparse.Namespace, pools: int = 2) -> None:
    """What holds for pools of 500 to 5,000 rows: by kind and rows labelled, over shares of errors, sizes and seeds."""
    for kind, rows in product(kinds, arguments.rows):
        found = []
        for wrong, size, seed in product(errors, (500, 1000, 5000), range(pools)):
            held, width = simulate(*_pool(kind, wrong, size, seed), rows, arguments.audits)
            found.append((held / arguments.audits, width))
        held, width = np.mean(found, axis=0)
        least = min(found)[0]
        print(f"{kind}; {rows} labelled: holds in {held:.3f}, at least {least:.3f}, width {width:.4f}", flush=True)


def _pool(kind: str, wrong: float, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(size,) which labels are right, and how sure they are; `wrong` of all, or of the surest fifth, are wrong."""
    rng = np.random.default_rng([seed, size, round(1000 * wrong)])
    if kind == "hidden":
        doubtful = size * 4 // 5
        sure = np.r_[rng.uniform(0.5, 0.9, doubtful), rng.uniform(0.99, 1.0, size - doubtful)]
        return np.r_[np.ones(doubtful, bool), rng.random(size - doubtful) >= wrong], sure
    chance = np.clip(rng.beta((1 - wrong) * 5, wrong * 5, size), 0.02, 1.0)
    right = rng.random(size) < chance
    if kind == "random":
        rng.shuffle(right)
    return right, chance + 0.5 * (1 - chance) if kind == "overconfident" else chance


def simulate(right: np.ndarray, sure: np.ndarray, rows: int, audits: int) -> tuple[int, float]:
    """How many intervals have the truth in them, and how wide they are in the mean."""
    stratum = strata(sure)
    wanted = allocate(rows, stratum)
    held, widths = 0, []
    for seed in range(audits):
        drawn = draw(wanted, stratum, seed)
        found = certify(drawn, right[drawn], sure, stratum)
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
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--hidden", action="store_true")
    parser.add_argument("--rows", nargs="+", type=int, default=[50, 100, 200, 300])
    parser.add_argument("--audits", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
