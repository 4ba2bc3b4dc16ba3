"""How far apart the probabilities of three runs over the same rows are: the last step of vllm_check.sh."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from pyarrow import parquet

WAYS = ("local", "vllm", "openai")


def main(folder: Path) -> None:
    proba = {way: read(folder / way) for way in WAYS}
    for way in WAYS:
        summary = json.loads((folder / way / "summary.json").read_text(encoding="utf-8"))
        usage = summary["usage"]
        apart = np.abs(proba[way] - proba["local"])
        labels = (proba[way].argmax(axis=1) == proba["local"].argmax(axis=1)).mean()
        hits = usage["tokens_cached"]
        cached = "" if hits is None else f", {hits / usage['tokens_in']:.0%} of the prompt tokens from the prefix cache"
        rate = len(apart) / summary["seconds"]
        print(
            f"{way:8} {rate:6.2f} rows/s with its start{cached}; against local: largest difference {apart.max():.1e},"
        )
        print(f"{'':8} mean {apart.mean():.1e}, {labels:.1%} the same label")


def read(run: Path) -> np.ndarray:
    """(rows, labels) what the LLM said in the first round, ordered by the id of the row."""
    table = parquet.read_table(run / "rounds" / "00" / "annotations.parquet").sort_by("id")
    names = [name for name in table.column_names if name.startswith("first: ")]
    return np.stack([table[name].to_numpy() for name in names], axis=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
