"""Every request and reply of a run, durable before it is used, so that nothing is asked or paid for twice.

One SQLite file beside the run (`ledger.sqlite`): a row a request, found again by a hash of everything that
changes its answer (the LLM's identity, messages, choices, sampling) and of nothing else. A request that
costs money passes through three states: `sent` before it leaves, `received` once the raw reply is on the
disk, `read` once it is understood; or it has `failed`, and may be sent again. What a process in its own memory
computes is kept in one step.

One thread writes, and commits together what came meanwhile; a future says when. Ledgers of earlier runs
can be put beneath (`reuse`): what they hold is copied.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Self

from freeal.errors import RunError
from freeal.failpoints import failpoint
from freeal.llm import Message, Reply, Request

SCHEMA = 4
FILE = "ledger.sqlite"
MEMBER = " | "
"""Stands in the name of a work before that of a further member of a panel: "round 0 | gpt-4o" is part of "round 0"."""

WAYS = "llm.ways"
"""Under this name the ledger remembers what `LLM.prepare` found out."""

TOGETHER = 256
"""The most operations of one commit."""

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
  key TEXT PRIMARY KEY, question TEXT NOT NULL, work TEXT NOT NULL, uid TEXT NOT NULL, asked TEXT NOT NULL,
  state TEXT NOT NULL, sent INTEGER NOT NULL, raw TEXT, text TEXT, logprobs TEXT,
  tokens_in INTEGER NOT NULL DEFAULT 0, tokens_out INTEGER NOT NULL DEFAULT 0, problem TEXT,
  seconds REAL NOT NULL DEFAULT 0, cost REAL NOT NULL DEFAULT 0, reused INTEGER NOT NULL DEFAULT 0,
  tokens_cached INTEGER, doubtful INTEGER NOT NULL DEFAULT 0, doubt REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_question ON requests (question);
CREATE TABLE IF NOT EXISTS asked_rows (
  work TEXT NOT NULL, uid TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (work, uid)
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS states (key TEXT PRIMARY KEY, hidden BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What some work cost: calls answered, their tokens, seconds and money; and replies reused, which cost nothing.

    `tokens_cached` of the `tokens_in` were in the server's prefix cache; None where none of the replies tells. `doubt`:
    dollars that attempts may have cost which brought nothing, at most.
    """

    calls: int = 0
    reused: int = 0
    tokens_in: int = 0
    tokens_cached: int | None = None
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    doubt: float = 0.0


@dataclass(frozen=True, slots=True)
class Unread:
    """A reply that was received, but not understood yet: the process ended in between. `reused`: another run paid."""

    raw: str
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A request as it is kept: its key, the work it belongs to, and what was asked, made once for all its states."""

    key: str
    work: str
    request: Request
    values: Mapping[str, object]

    @classmethod
    def of(cls, key: str, work: str, request: Request) -> Entry:
        asked = _settings(request)
        asked["messages"] = [[message.role, message.content] for message in request.messages]
        return cls(key, work, request, {
            "key": key, "question": question_of(request), "work": work, "uid": request.uid,
            "asked": json.dumps(asked, ensure_ascii=False),
        })  # fmt: skip


_SETTINGS = ("choices", "max_tokens", "temperature", "seed")


def _settings(request: Request) -> dict[str, object]:
    """All that is asked beside the messages; a schema only where there is one, as it came later than the format."""
    asked = {name: getattr(request, name) for name in _SETTINGS}
    return asked if request.schema is None else {**asked, "schema": request.schema}


def question_of(request: Request, by_uid: bool = False) -> str:
    """Hash of all that is asked: messages, choices and sampling; the id of the row only if replies depend on it."""
    asked = _settings(request)
    asked["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    return _hash({**asked, "uid": request.uid} if by_uid else asked)


def key_of(identity: Mapping[str, object], question: str) -> str:
    """Hash under which the reply of this LLM to this question is kept."""
    return _hash([dict(identity), question])


def _hash(value: object) -> str:
    plain = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:40]


class Ledger:
    """The requests and replies of one run.

    Args:
        path: the SQLite file; made if it is not there.
        reuse: ledgers of earlier runs to look in as well; they are opened for reading only.
        read_only: this one too is only read; it must be there.

    Raises:
        RunError: a file is no ledger, or of a newer freeal; later, from any write: it could not be kept.
    """

    def __init__(self, path: Path, reuse: Sequence[Path] = (), read_only: bool = False) -> None:
        self.path = path
        self._beneath = [_for_reading(place) for place in reuse]
        self._writer = None if read_only else _Writer(_for_writing(path), path)
        self._own = _for_reading(path)

    def find(self, key: str, work: str) -> Reply | Unread | None:
        """What is kept under `key`; what an earlier run's ledger holds is copied into this one."""
        own = self._one(f"SELECT {_FOUND} FROM requests WHERE key = ? AND state IN ('received', 'read')", (key,))
        if own:
            return _found(own)
        for ledger in self._beneath:
            row = self._one("SELECT * FROM requests WHERE key = ? AND state IN ('received', 'read')", (key,), ledger)
            if row:
                self._write([(_COPY, {**dict(row), "work": work})])
                found = _found(row)
                return Unread(found.raw, reused=True) if isinstance(found, Unread) else found
        return None

    def has(self, key: str) -> bool:
        """Whether a reply is kept under `key`, here or in a ledger beneath."""
        found = "SELECT 1 FROM requests WHERE key = ? AND state IN ('received', 'read')"
        return any(self._one(found, (key,), ledger) for ledger in (self._own, *self._beneath))

    def state(self, key: str) -> bytes | None:
        """The hidden state (`llm.hidden`) of a model that is asked what goes by `key`; None if it is not known."""
        for ledger in (self._own, *self._beneath):
            if row := self._one("SELECT hidden FROM states WHERE key = ?", (key,), ledger):
                if ledger is not self._own:
                    self._write(_states({key: row["hidden"]}))
                hidden: bytes = row["hidden"]
                return hidden
        return None

    def keep_states(self, states: Mapping[str, bytes]) -> None:
        """Commit hidden states by key; what is known of a key stays, so that who was told of it is told the same."""
        self._write(_states(states)).result()

    def note_rows(self, work: str, rows: Iterable[tuple[str, str]]) -> None:
        """Which (id of the example, key) belong to `work`, each answered or not: what `status` accounts for.

        A request that is about no example, with an empty id, is noted under its key.
        """
        self._write(
            [("INSERT OR REPLACE INTO asked_rows VALUES (?, ?, ?)", (work, uid or key, key)) for uid, key in rows]
        )

    def sent(self, entry: Entry) -> Future[None]:
        """A request is about to leave; it may, once the future is done."""
        return self._write([(_SENT, entry.values)])

    def received(self, replies: Iterable[tuple[Entry, str]], seconds: float) -> Future[None]:
        """(request, raw reply as it came), kept all together; they may be read once the future is done."""
        rows = [{**entry.values, "raw": raw, "seconds": seconds} for entry, raw in replies]
        return self._write([(_RECEIVED, row) for row in rows])

    def failed(self, key: str, billed: bool, worst: float) -> None:
        """An attempt came to nothing; with `billed` it may have cost up to `worst` dollars all the same."""
        self._write([(_FAILED, {"key": key, "doubtful": int(billed), "doubt": worst if billed else 0.0})])

    def read(self, key: str, reply: Reply, cost: float = 0.0) -> Future[None]:
        """What a received reply says; lost in a crash, it is read again from the raw one."""
        return self._write([(_READ, {**_reply(reply), "key": key, "cost": cost})])

    def reread(self, key: str, reply: Reply) -> None:
        """Another reading of a reply that was read before; what it cost stays."""
        self._write([(_REREAD, {**_reply(reply), "key": key})])

    def keep(self, replies: Iterable[tuple[Entry, Reply]], seconds: float) -> None:
        """Commit (request, reply) all together, as one; `seconds` is what they took as a whole."""
        told = list(replies)
        share = seconds / max(1, len(told))
        rows = [(_KEEP, {**entry.values, **_reply(reply), "seconds": share}) for entry, reply in told]
        states = _states({entry.key: reply.hidden for entry, reply in told if reply.hidden is not None})
        self._write([*rows, *states]).result()

    def remember(self, name: str, value: object) -> None:
        """A fact about this run that must not change under it, such as what the server can do."""
        self._write([("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))]).result()

    def recall(self, name: str, alone: bool = False) -> object | None:
        """The fact remembered under `name`, here or in a ledger beneath; `alone`: as if nothing had been reused."""
        for ledger in (self._own, *(() if alone else self._beneath)):
            if row := self._one("SELECT value FROM facts WHERE name = ?", (name,), ledger):
                value: object = json.loads(row["value"])
                return value
        return None

    def usage(self, works: Iterable[str] | None = None, alone: bool = False) -> Usage:
        """Totals of the given works ("round 0", "test", …), or of all; `alone`: as if nothing had been reused."""
        self.settle()
        own = "1" if alone else "(1 - reused)"
        chosen, where = _among(works)
        totals = self._one(
            f"SELECT COALESCE(SUM({own} * NOT ({_REFUSED})), 0), COALESCE(SUM(1 - {own}), 0),"
            f" COALESCE(SUM(tokens_in * {own}), 0), SUM(tokens_cached * {own}),"
            f" COALESCE(SUM(tokens_out * {own}), 0),"
            f" COALESCE(SUM(seconds * {own}), 0), COALESCE(SUM(cost * {own}), 0)"
            f" FROM requests WHERE state IN ('received', 'read') {where}",
            chosen,
        )
        doubts = self._one(f"SELECT COALESCE(SUM(doubt), 0) FROM requests WHERE TRUE {where}", chosen)
        assert totals is not None
        assert doubts is not None
        calls, reused, tokens_in, tokens_cached, tokens_out, seconds, cost = totals
        return Usage(
            calls, reused, tokens_in, tokens_cached, tokens_out, round(seconds, 3), round(cost, 6), round(doubts[0], 6)
        )

    def tokens(self, works: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Work, as it is kept (of a panel one for each member) -> tokens in and out of its replies, reused ones too."""
        self.settle()
        chosen, where = _among(works)
        of_works = self._select(
            "SELECT work, SUM(tokens_in), SUM(tokens_out) FROM requests"
            f" WHERE state IN ('received', 'read') {where} GROUP BY work",
            chosen,
        )
        return {work: (tokens_in, tokens_out) for work, tokens_in, tokens_out in of_works}

    def retries(self, works: Iterable[str] | None = None) -> int:
        """Attempts after the first at the requests of the given works, or of all: those before them came to nothing."""
        chosen, where = _among(works)
        again = "SELECT COALESCE(SUM(sent - 1), 0) FROM requests"
        found = self._one(f"{again} WHERE NOT reused AND sent > 1 {where}", chosen)
        return int(found[0]) if found else 0

    def in_doubt(self, works: Iterable[str] | None = None, under_way: bool = True) -> int:
        """Attempts that may have been paid for and brought nothing: given up, or (`under_way`) their process ended."""
        chosen, where = _among(works)
        sent = "(state = 'sent')" if under_way else "0"
        found = self._one(f"SELECT COALESCE(SUM({sent} + doubtful), 0) FROM requests WHERE TRUE {where}", chosen)
        return int(found[0]) if found else 0

    def is_under_way(self, key: str) -> bool:
        """Whether this request was sent, and neither answered nor given up."""
        return self._one("SELECT 1 FROM requests WHERE key = ? AND state = 'sent'", (key,)) is not None

    def unanswered(self) -> Iterator[tuple[str, str, Request]]:
        """(key, work, request) of what was under way when a process was ended."""
        for row in self._select("SELECT * FROM requests WHERE state = 'sent' ORDER BY key"):
            yield row["key"], row["work"], _asked(row)

    def rows(self) -> Iterator[tuple[str, str, Reply | Unread | None]]:
        """(work, id of the example or "", what is kept of its reply) of all that was to be asked, in that order."""
        self.settle()
        uid = "CASE a.uid WHEN a.key THEN '' ELSE a.uid END"
        every = f"SELECT a.work, {uid}, r.* FROM asked_rows a LEFT JOIN requests r USING (key) ORDER BY a.rowid"
        for row in self._select(every):
            yield row[0], row[1], None if row["state"] not in ("received", "read") else _found(row)

    def of_row(self, uid: str) -> Iterator[tuple[str, Request, Reply | Unread | None]]:
        """(work, request, what is kept of its reply) of each time the example with the id `uid` was asked about.

        In the order of the works, second tries after first ones. `asked_rows` has one question a row and work: a reply
        that another example was given first stands there alone, all that were asked for this one in `requests`, too.
        """
        keys = (
            "SELECT work AS of_work, key FROM asked_rows WHERE uid = ?"
            " UNION SELECT work, key FROM requests WHERE uid = ?"
        )
        every = self._select(f"SELECT of_work, r.* FROM ({keys}) JOIN requests r USING (key)", (uid, uid))
        for row in sorted(every, key=lambda row: (_by_number(row["of_work"]), len(row["asked"]), row["asked"])):
            answered = row["state"] in ("received", "read")
            yield row["of_work"], _asked(row), _found(row) if answered else None

    def raw(self) -> Iterator[tuple[str, str, Request, Reply | Unread]]:
        """(key, raw reply, request, what is kept of its meaning) of every reply that a server gave."""
        for row in self._select("SELECT * FROM requests WHERE raw IS NOT NULL ORDER BY key"):
            yield row["key"], row["raw"], _asked(row), _found(row)

    def answers_to(self, question: str) -> Reply | None:
        """What any LLM once replied to `question`: for replaying a run without its LLM."""
        where = "question = ? AND state = 'read'"
        row = self._one(f"SELECT {_FOUND} FROM requests WHERE {where}", (question,))
        found = _found(row) if row else None
        return None if isinstance(found, Unread) else found

    def settle(self) -> None:
        """Wait until all that was told is on the disk; RunError if any of it could not be kept."""
        if self._writer:
            self._writer.put([]).result()
            if self._writer.failure:
                raise self._writer.failure

    def close(self) -> None:
        """Give the files back, with all that was told on the disk."""
        for ledger in (self._own, *self._beneath):
            ledger.close()
        if self._writer:
            self._writer.close()  # the last to go takes the write-ahead log along

    def _select(
        self, sql: str, values: Sequence[object] = (), ledger: sqlite3.Connection | None = None
    ) -> Iterator[sqlite3.Row]:
        try:
            yield from (ledger or self._own).execute(sql, values)
        except sqlite3.Error as error:
            raise _unreadable(self.path, error) from error

    def _one(
        self, sql: str, values: Sequence[object] = (), ledger: sqlite3.Connection | None = None
    ) -> sqlite3.Row | None:
        found = list(self._select(sql, values, ledger))
        return found[0] if found else None

    def _write(self, statements: Sequence[_Statement]) -> Future[None]:
        if self._writer is None:
            raise RunError(f"{self.path}: opened for reading only")
        return self._writer.put(statements)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_Statement = tuple[str, Mapping[str, object] | Sequence[object]]
_Operation = tuple[Sequence[_Statement], Future[None]]


class _Writer:
    """The one thread that writes; operations that come while it commits are committed together next."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self.failure: RunError | None = None
        self._thread = Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def put(self, statements: Sequence[_Statement]) -> Future[None]:
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # who waits may be cancelled; what was told is written all the same
        self._queue.put((statements, done))
        return done

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        closing = False
        while not closing:
            together: list[_Operation] = []
            for operation in self._next():
                if operation is None:
                    closing = True
                else:
                    together.append(operation)
            try:
                self._commit(together)
            except Exception as error:
                # one operation that cannot be kept must not take the others with it
                for operation in together:
                    self._alone(operation, error if len(together) == 1 else None)
            else:
                for _, done in together:
                    done.set_result(None)

    def _next(self) -> Iterator[_Operation | None]:
        yield self._queue.get()
        for _ in range(TOGETHER - 1):
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def _alone(self, operation: _Operation, error: Exception | None) -> None:
        try:
            if error is not None:
                raise error
            self._commit([operation])
        except Exception as failure:
            told = RunError(f"{self._path}: could not be written ({failure}); make room and resume: what is kept stays")
            if "malformed" in str(failure):
                told = _unreadable(self._path, failure)
            told.__cause__ = failure
            self.failure = self.failure or told
            operation[1].set_exception(told)
        else:
            operation[1].set_result(None)

    def _commit(self, operations: Sequence[_Operation]) -> None:
        failpoint("ledger.before_commit")
        with self._connection:
            for statements, _ in operations:
                for sql, values in statements:
                    self._connection.execute(sql, values)
        failpoint("ledger.after_commit")


_FOUND = "state, raw, text, logprobs, tokens_in, tokens_out, problem, tokens_cached, reused"
_NAMES = (
    "key, question, work, uid, asked, state, sent, raw, text, logprobs, tokens_in, tokens_out, problem, tokens_cached,"
    " seconds"
)
_REQUEST = ":key, :question, :work, :uid, :asked"
_MEANING = ":text, :logprobs, :tokens_in, :tokens_out, :problem, :tokens_cached"
_SENT = (
    f"INSERT INTO requests (key, question, work, uid, asked, state, sent) VALUES ({_REQUEST}, 'sent', 1)"
    " ON CONFLICT (key) DO UPDATE SET state = 'sent', sent = sent + 1 WHERE state IN ('sent', 'failed')"
)
_RECEIVED = (
    "INSERT INTO requests (key, question, work, uid, asked, state, sent, raw, seconds)"
    f" VALUES ({_REQUEST}, 'received', 1, :raw, :seconds)"
    " ON CONFLICT (key) DO UPDATE SET state = 'received', raw = :raw, seconds = :seconds"
)
_READ = (
    "UPDATE requests SET state = 'read', text = :text, logprobs = :logprobs, tokens_in = :tokens_in,"
    " tokens_out = :tokens_out, problem = :problem, tokens_cached = :tokens_cached, cost = :cost WHERE key = :key"
)
_FAILED = (
    "UPDATE requests SET state = 'failed', doubtful = doubtful + :doubtful, doubt = doubt + :doubt"
    " WHERE key = :key AND state = 'sent'"
)
_REREAD = _READ.replace(", cost = :cost", "")
# a request that was sent and never answered gives way to an answer; an answer stays
_UNLESS_ANSWERED = (
    " ON CONFLICT (key) DO UPDATE SET state = excluded.state, raw = excluded.raw, text = excluded.text,"
    " logprobs = excluded.logprobs, tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out,"
    " problem = excluded.problem, tokens_cached = excluded.tokens_cached,"
    " seconds = excluded.seconds, reused = excluded.reused WHERE requests.state IN ('sent', 'failed')"
)
_KEEP = (
    f"INSERT INTO requests ({_NAMES}, reused) VALUES ({_REQUEST}, 'read', 1, NULL, {_MEANING}, :seconds, 0)"
    + _UNLESS_ANSWERED
)
_COPY = (
    f"INSERT INTO requests ({_NAMES}, reused) VALUES ({_REQUEST}, :state, :sent, :raw, {_MEANING}, :seconds, 1)"
    + _UNLESS_ANSWERED
)


_STATE = (
    "INSERT INTO states VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET hidden = excluded.hidden"
    " WHERE substr(hidden, 1, 2) != substr(excluded.hidden, 1, 2)"
)
_REFUSED = "problem IS NOT NULL AND raw IS NULL AND tokens_in = 0"
"""A row that holds a server's refusal, which cost nothing and is no call."""


def _states(states: Mapping[str, bytes]) -> list[_Statement]:
    """What keeps hidden states by key; one that is known of the same layer, which its first two bytes tell, stays."""
    return [(_STATE, each) for each in states.items()]


def _among(works: Iterable[str] | None) -> tuple[list[str], str]:
    """Values, and the end of a WHERE clause, for rows of these works, of whatever LLM; of all, if None."""
    chosen = [] if works is None else list(works)
    first = f"CASE INSTR(work, '{MEMBER}') WHEN 0 THEN work ELSE SUBSTR(work, 1, INSTR(work, '{MEMBER}') - 1) END"
    return chosen, "" if works is None else f"AND {first} IN ({','.join('?' * len(chosen))})"


def _asked(row: sqlite3.Row) -> Request:
    asked = json.loads(row["asked"])
    messages = tuple(Message(role, content) for role, content in asked.pop("messages"))
    return Request(messages, tuple(asked.pop("choices")), **asked, uid=row["uid"])


def _reply(reply: Reply) -> dict[str, object]:
    logprobs = None if reply.logprobs is None else json.dumps(reply.logprobs)
    return {
        "text": reply.text, "logprobs": logprobs, "tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out,
        "problem": reply.problem, "tokens_cached": reply.tokens_cached,
    }  # fmt: skip


def _found(row: sqlite3.Row) -> Reply | Unread:
    if row["state"] == "received":
        return Unread(row["raw"], bool(row["reused"]))
    logprobs = None if row["logprobs"] is None else tuple(json.loads(row["logprobs"]))
    return Reply(row["text"], logprobs, row["tokens_in"], row["tokens_out"], row["problem"], row["tokens_cached"])


def _for_writing(path: Path) -> sqlite3.Connection:
    try:
        connection = _open(path, "rwc")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        before, after = _MIGRATIONS.get(_schema(connection), ("", ""))
        connection.executescript(f"BEGIN; {before} {_TABLES} {after} PRAGMA user_version = {SCHEMA}; COMMIT;")
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    return connection


def _for_reading(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise RunError(f"{path}: no ledger here")
    try:
        connection = _open(path, "ro")
        made = connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        connection.executescript(_VIEWS.get(_schema(connection), "") if made else _NOTHING_YET)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    return connection


_SCHEMA_1_AS_NOW = (
    "SELECT key, question, work, uid, json_object('messages', json(messages)) AS asked, 'read' AS state, 1 AS sent,"
    " NULL AS raw, text, logprobs, tokens_in, tokens_out, problem, seconds, 0.0 AS cost, reused,"
    " NULL AS tokens_cached, 0 AS doubtful, 0.0 AS doubt FROM replies"
)
_MIGRATIONS = {  # schema: what is done before, and what after the tables of now are made
    1: ("", f"INSERT OR IGNORE INTO requests {_SCHEMA_1_AS_NOW}; DROP TABLE replies;"),
    2: (
        "ALTER TABLE requests ADD COLUMN tokens_cached INTEGER;"
        " ALTER TABLE requests ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0;"
        " ALTER TABLE requests ADD COLUMN doubt REAL NOT NULL DEFAULT 0;",
        "",
    ),
}
_NOTHING_YET = _TABLES.replace("CREATE TABLE IF NOT EXISTS", "CREATE TEMP TABLE").replace(
    "CREATE INDEX IF NOT EXISTS", "CREATE INDEX"
)
"""What is read of a ledger that another process is making just now."""

_NO_STATES = "CREATE TEMP TABLE states (key TEXT, hidden BLOB);"
_VIEWS = {  # schema: how a file that may not be changed is read as one of now
    1: f"CREATE TEMP VIEW requests AS {_SCHEMA_1_AS_NOW}; CREATE TEMP TABLE facts (name TEXT, value TEXT);"
    f" CREATE TEMP TABLE asked_rows (work TEXT, uid TEXT, key TEXT); {_NO_STATES}",
    2: "CREATE TEMP VIEW requests AS SELECT *, NULL AS tokens_cached, 0 AS doubtful, 0 AS doubt FROM main.requests;"
    f" {_NO_STATES}",
    3: _NO_STATES,
}


def _open(path: Path, mode: str) -> sqlite3.Connection:
    # one thread uses a connection at a time: the writer its own, the caller those that read
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    if (found := _schema(connection)) > SCHEMA:
        connection.close()
        raise RunError(f"{path}: written by a newer freeal (schema {found}, this one knows {SCHEMA})")
    return connection


def _by_number(work: str) -> list[str | int]:
    """What puts works into their order: round 2 comes before round 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", work)]


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: cannot be used as a ledger ({error}); save what can be:  freeal repair {path.parent}")


def _schema(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
