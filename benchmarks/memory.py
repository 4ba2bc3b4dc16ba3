"""Memory and time of labelling a large pool with the scripted LLM: flat and linear, or not.

Prints resident memory and time at each tenth of the rows.

    python benchmarks/memory.py --rows 1000000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from freeal.annotator import Annotator
from freeal.events import Event, Progress
from freeal.ledger import Ledger
from freeal.llm import Reply
from freeal.llm.scripted import ScriptedLLM
from freeal.prompts import load
from freeal.types import Example, Pool

ROOT = Path(__file__).parent.parent


def main() -> None:
    arguments = _arguments()
    pool = Pool(tuple(Example(f"r{i}", f"film {i} was fine") for i in range(arguments.rows)))
    started, step = time.perf_counter(), max(1, arguments.rows // 10)
    told: list[tuple[int, float, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= step * (len(told) + 1):
            told.append((event.done, resident(), time.perf_counter() - started))
            print(f"{event.done:>9,} rows  {told[-1][1]:7.0f} MB  {told[-1][2]:7.1f} s", flush=True)

    llm = ScriptedLLM(lambda request: Reply("positive", (-1.2, -0.4), 20, 1), probabilities=True)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        annotator = Annotator(load(ROOT / "prompts" / "mr.md"), llm, ledger, listen)
        rows = np.arange(len(pool))
        answers = annotator.annotate(pool, rows, [()] * len(rows), "round 0")
    assert not np.isnan(answers.proba).any()
    growth = told[-1][1] - told[0][1]
    slower = (told[-1][2] - told[-2][2]) / told[0][2]
    print(
        f"memory grew by {growth:.0f} MB from the first tenth to the last; the last tenth took {slower:.2f}x the first"
    )


def resident() -> float:
    """Megabytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
