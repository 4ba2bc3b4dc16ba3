"""Every request and reply of a run, durable before it is used, so that nothing is asked twice.

One SQLite file beside the run (`ledger.sqlite`). A reply is found again by a hash of everything that
changes it (the LLM's identity, messages, choices, sampling) and of nothing else; replies are committed
one chunk at a time, whole. Ledgers of earlier runs can be put beneath (`reuse`): what they hold is copied.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from freeal.errors import RunError
from freeal.llm import Reply, Request

SCHEMA = 1
FILE = "ledger.sqlite"

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, question TEXT NOT NULL, work TEXT NOT NULL, uid TEXT NOT NULL, messages TEXT NOT NULL,
  text TEXT, logprobs TEXT, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, problem TEXT,
  seconds REAL NOT NULL, reused INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_question ON replies (question);
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What some work cost: calls made, their tokens and seconds of the LLM; and replies reused, which cost nothing."""

    calls: int = 0
    reused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


def question_of(request: Request, by_uid: bool = False) -> str:
    """Hash of all that is asked: messages, choices and sampling; the id of the row only if replies depend on it."""
    asked = asdict(request)
    if not by_uid:
        del asked["uid"]
    return _hash(asked)


def key_of(identity: Mapping[str, object], question: str) -> str:
    """Hash under which the reply of this LLM to this question is kept."""
    return _hash([dict(identity), question])


def _hash(value: object) -> str:
    plain = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:40]


class Ledger:
    """The kept replies of one run.

    Args:
        path: the SQLite file; made if it is not there.
        reuse: ledgers of earlier runs to look in as well; they are opened for reading only.
        read_only: this one too is only read; it must be there.

    Raises:
        RunError: a file is no ledger, or of a newer freeal.
    """

    def __init__(self, path: Path, reuse: Sequence[Path] = (), read_only: bool = False) -> None:
        self.path = path
        self._own = _connect(path, read_only)
        self._beneath = [_connect(place, read_only=True) for place in reuse]

    def find(self, key: str, work: str) -> Reply | None:
        """The reply kept under `key`; one found in an earlier run's ledger is copied into this one."""
        own = self._own.execute(f"SELECT {_REPLY} FROM replies WHERE key = ?", (key,)).fetchone()
        if own:
            return _reply(own)
        for ledger in self._beneath:
            row = ledger.execute("SELECT * FROM replies WHERE key = ?", (key,)).fetchone()
            if row:
                self._own.execute(_INSERT, {**dict(row), "work": work, "reused": 1})  # `settle` commits
                return _reply(row)
        return None

    def settle(self) -> None:
        """Commit what `find` copied: once a chunk, not once a reply."""
        self._own.commit()

    def keep(self, work: str, replies: Iterable[tuple[str, Request, Reply]], seconds: float) -> None:
        """Commit (key, request, reply) all together; `seconds` is what they took as a whole."""
        rows = [_row(key, request, reply, work) for key, request, reply in replies]
        share = seconds / max(1, len(rows))
        try:
            with self._own:
                self._own.executemany(_INSERT, [{**row, "seconds": share} for row in rows])
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: replies could not be kept ({error}); free some space and resume") from error

    def usage(self, works: Iterable[str] | None = None) -> Usage:
        """Totals of the given works ("round 0", "test", …), or of all."""
        chosen = None if works is None else list(works)
        where = "" if chosen is None else f"WHERE work IN ({','.join('?' * len(chosen))})"
        found = self._own.execute(
            "SELECT COALESCE(SUM(1 - reused), 0), COALESCE(SUM(reused), 0),"
            " COALESCE(SUM(tokens_in * (1 - reused)), 0), COALESCE(SUM(tokens_out * (1 - reused)), 0),"
            f" COALESCE(SUM(seconds * (1 - reused)), 0) FROM replies {where}",
            chosen or (),
        ).fetchone()
        return Usage(int(found[0]), int(found[1]), int(found[2]), int(found[3]), round(float(found[4]), 3))

    def answers_to(self, question: str) -> Reply | None:
        """What any LLM once replied to `question`: for replaying a run without its LLM."""
        row = self._own.execute(f"SELECT {_REPLY} FROM replies WHERE question = ?", (question,)).fetchone()
        return _reply(row) if row else None

    def close(self) -> None:
        """Give the files back, with what was copied kept."""
        self.settle()
        for ledger in (self._own, *self._beneath):
            ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_REPLY = "text, logprobs, tokens_in, tokens_out, problem"
_INSERT = (
    "INSERT OR IGNORE INTO replies (key, question, work, uid, messages, text, logprobs, tokens_in, tokens_out,"
    " problem, seconds, reused) VALUES (:key, :question, :work, :uid, :messages, :text, :logprobs, :tokens_in,"
    " :tokens_out, :problem, :seconds, :reused)"
)


def _row(key: str, request: Request, reply: Reply, work: str) -> dict[str, object]:
    return {
        "key": key, "question": question_of(request), "work": work, "uid": request.uid, "text": reply.text,
        "messages": json.dumps([[m.role, m.content] for m in request.messages], ensure_ascii=False),
        "logprobs": None if reply.logprobs is None else json.dumps(reply.logprobs),
        "tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out, "problem": reply.problem, "reused": 0,
    }  # fmt: skip


def _reply(row: sqlite3.Row) -> Reply:
    logprobs = None if row["logprobs"] is None else tuple(json.loads(row["logprobs"]))
    return Reply(row["text"], logprobs, row["tokens_in"], row["tokens_out"], row["problem"])


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    if read_only and not path.is_file():
        raise RunError(f"{path}: no ledger here to reuse")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}", uri=True)
        connection.row_factory = sqlite3.Row
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found > SCHEMA:
            raise RunError(f"{path}: written by a newer freeal (schema {found}, this one knows {SCHEMA})")
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
    except sqlite3.Error as error:
        raise RunError(f"{path}: cannot be used as a ledger: {error}") from error
    return connection
