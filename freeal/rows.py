"""Which rows a run is about: kept at its start, compared when it is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freeal.data import Corpus
from freeal.errors import ChangedError, RunError
from freeal.types import Pool

FILE = "rows.parquet"


@dataclass(frozen=True, slots=True)
class Changes:
    """How rows of now differ from those of then: ids that are gone, whose text or fields are others, and new ones."""

    removed: tuple[str, ...]
    edited: tuple[str, ...]
    added: tuple[str, ...]

    def __str__(self) -> str:
        kinds = (("removed", self.removed), ("edited", self.edited), ("added", self.added))
        return "; ".join(f"{len(ids):,} {what} ({_some(ids)})" for what, ids in kinds if ids)


def write(folder: Path, corpus: Corpus) -> None:
    """Keep id and hash of every row of pool and test in the run directory `folder`, and whether it came as tokens."""
    import pyarrow as pa
    from pyarrow import parquet

    parts = [("pool", corpus.pool), *([("test", corpus.test)] if corpus.test else [])]
    columns = {
        "split": [name for name, pool in parts for _ in pool.examples],
        "id": [example.id for _, pool in parts for example in pool.examples],
        "hash": [found for _, pool in parts for found in hashes(pool)],
        "tokenized": [example.tokenized for _, pool in parts for example in pool.examples],
    }
    parquet.write_table(pa.table(columns), folder / FILE)


def read(folder: Path) -> dict[str, dict[str, str]]:
    """Split ("pool", "test") -> id -> hash, in the order of then.

    Raises:
        RunError: the run directory does not hold them.
    """
    table = _table(folder)
    found: dict[str, dict[str, str]] = {"pool": {}, "test": {}}
    for split, uid, of_row in zip(table["split"], table["id"], table["hash"], strict=True):
        found[split][uid] = of_row
    return found


def tokenized(folder: Path) -> list[bool]:
    """Whether each row of the pool came as tokens, in the order of then; nothing is known of runs of an earlier freeal.

    Raises:
        RunError: the run directory does not hold the rows.
    """
    table = _table(folder)
    known = table.get("tokenized", [False] * len(table["split"]))
    return [bool(each) for split, each in zip(table["split"], known, strict=True) if split == "pool"]


def _table(folder: Path) -> dict[str, list[Any]]:
    """The columns of the file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        columns: dict[str, list[Any]] = parquet.read_table(folder / FILE).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            f"{folder / FILE}: cannot be read ({error}); start another run, with --reuse {folder}"
        ) from error
    return columns


def as_before(folder: Path, corpus: Corpus) -> Corpus:
    """The corpus with the rows of the run in `folder`, in their order then; another order in the file is no change.

    Raises:
        ChangedError: rows were removed, edited or added since.
    """
    then = read(folder)
    for split, pool in (("pool", corpus.pool), ("test", corpus.test)):
        if found := str(changes(then[split], pool)):
            raise ChangedError(
                f"{folder}: its {split} has changed since: {found}; "
                f"start another run, in which what is kept costs nothing: freeal run --fork {folder}"
            )
    return corpus.in_order(list(then["pool"]))


def changes(then: Mapping[str, str], pool: Pool | None) -> Changes:
    """What changed since the hashes `then` (by id) were taken; the order of the rows does not matter."""
    examples = () if pool is None else pool.examples
    now = {} if pool is None else dict(zip((e.id for e in examples), hashes(pool), strict=True))
    return Changes(
        removed=tuple(uid for uid in then if uid not in now),
        edited=tuple(uid for uid in then if uid in now and now[uid] != then[uid]),
        added=tuple(uid for uid in now if uid not in then),
    )


def hashes(pool: Pool) -> list[str]:
    """A hash for each row, over its text and fields."""
    return [
        hashlib.sha256(json.dumps([e.text, dict(e.fields)], ensure_ascii=False, sort_keys=True).encode()).hexdigest()[
            :16
        ]
        for e in pool.examples
    ]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
