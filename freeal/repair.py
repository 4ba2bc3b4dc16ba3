"""A run directory that was damaged: what can be read of its ledger is kept, damaged rounds are set aside.

Nothing is deleted: what was damaged stays beside what replaces it, under a name with `damaged` in it.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freeal import ledger
from freeal.errors import RunError
from freeal.store import RESULT, SUMMARY, RunStore, damaged_files

TABLES = ("requests", "asked_rows", "facts", "states")


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was saved of a ledger: rows read, rows known to be lost, tables of which nothing was left.

    `kept` is where the damaged file is now.
    """

    rows: int
    lost: int
    gone: tuple[str, ...]
    kept: Path


def mend_ledger(folder: Path) -> Salvage | None:
    """Make the ledger of a run anew from all rows that can be read; None if it is in order.

    Raises:
        RunError: there is none, it is of a newer freeal, or no request in it can be read.
    """
    path = folder / ledger.FILE
    if not path.is_file():
        raise RunError(f"{path}: no ledger here; the run has to begin anew")
    if _in_order(path):
        return None
    kept = _free(folder / "ledger.damaged.sqlite")
    for ending in _PARTS:
        if (part := Path(f"{path}{ending}")).exists():
            shutil.copyfile(part, f"{kept}{ending}")
    fresh = folder / "ledger.mended.sqlite"
    fresh.unlink(missing_ok=True)  # of a repair that was interrupted; its source is there still
    ledger.Ledger(fresh).close()
    try:
        saved = _copy(kept, fresh)
    except sqlite3.Error as error:
        fresh.unlink()
        for ending in _PARTS:
            Path(f"{kept}{ending}").unlink(missing_ok=True)  # a copy of what is still in its place
        raise RunError(f"{path}: nothing of it can be read ({error}); the run has to begin anew") from error
    for ending in _PARTS[1:]:  # first: a log that belongs to another file would be played into the new one
        Path(f"{path}{ending}").unlink(missing_ok=True)
    fresh.replace(path)
    return saved


_PARTS = ("", "-wal", "-shm")


def set_aside_rounds(folder: Path) -> list[str]:
    """Rename the first round with a damaged file, and all that came after it; gives what was wrong with it."""
    rounds = RunStore(folder).finished()
    for place, first in enumerate(rounds):
        if wrong := damaged_files(first):
            for name in (SUMMARY, RESULT):  # the run is no longer done
                (folder / name).unlink(missing_ok=True)
            for each in reversed(rounds[place:]):  # the damaged one last: until then a second repair finds it
                each.rename(_free(each.with_name(f"{each.name}.damaged")))
            return [str(first / name) for name in wrong]
    return []


def _in_order(path: Path) -> bool:
    try:
        ledger.Ledger(path, read_only=True).close()  # tells of a newer one
        with sqlite3.connect(path) as connection:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    except (sqlite3.Error, RunError) as error:
        if "newer freeal" in str(error):
            raise
        return False
    return found == ["ok"] and bool(tables & {"requests", "replies"})


def _copy(old: Path, new: Path) -> Salvage:
    """Every row that can be read, table by table; sqlite3.Error if no request can."""
    copied = lost = 0
    gone = []
    source, target = sqlite3.connect(old), sqlite3.connect(new)
    source.row_factory = sqlite3.Row
    try:
        with target:
            for table in TABLES:
                known = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
                try:
                    for row in _readable(source, table):
                        if row is None:
                            lost += 1
                            continue
                        values = {name: row[name] for name in row.keys() if name in known}  # noqa: SIM118
                        copied += _insert(target, table, values, new)
                except sqlite3.Error:
                    if table == TABLES[0]:
                        raise
                    gone.append(table)
    finally:
        source.close()
        target.close()
    return Salvage(copied, lost, tuple(gone), old)


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, object], path: Path) -> int:
    """Rows written: one, or none if it was there already; a file that takes none is no fault of the damaged one."""
    sql = f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    try:
        return connection.execute(sql, list(row.values())).rowcount
    except sqlite3.Error as error:
        raise RunError(f"{path}: could not be written ({error}); make room and repair again") from error


def _readable(connection: sqlite3.Connection, table: str) -> Iterator[sqlite3.Row | None]:
    """Every row in order; behind the first that cannot be read one by one, None for each that cannot."""
    last = 0
    try:
        for row in connection.execute(f"SELECT rowid AS place, * FROM {table} ORDER BY rowid"):
            last = row["place"]
            yield row
        return
    except sqlite3.Error:
        try:
            end = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
        except sqlite3.Error:
            if not last:
                raise
            end = last  # what lies behind the damage cannot even be counted
    for place in range(last + 1, end + 1):
        try:
            row = connection.execute(f"SELECT rowid AS place, * FROM {table} WHERE rowid = ?", (place,)).fetchone()
        except sqlite3.Error:
            yield None
        else:
            if row is not None:
                yield row


def _free(path: Path) -> Path:
    """`path`, or, where something is there, the first of its names with a number that is free."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
