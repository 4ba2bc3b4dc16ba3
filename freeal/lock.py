"""One process at a time in a run directory."""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import IO, Self

from freeal.errors import LockError, RunError

try:
    import fcntl
except ImportError:  # not on every system; there, nobody is kept out
    fcntl = None  # type: ignore[assignment]

FILE = "run.lock"


class RunLock:
    """Held while the `with` block runs; the system lets go of it with the process, however that ends.

    Raises:
        LockError: another process holds it; the message says which.

    Example:
        >>> with RunLock(Path("runs/mr")):                        # doctest: +SKIP
        ...     work()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            file = (self.folder / FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written ({error})") from error
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                told = holder(self.folder)
                file.close()
                raise LockError(f"{self.folder}: in use by {told}; wait for it, or end it") from error
        file.truncate(0)
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        file.write(json.dumps(about))
        file.flush()
        self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()


def holder(folder: Path) -> str:
    """Who holds the lock of a run directory, as it told itself."""
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def is_held(folder: Path) -> bool:
    """Whether a process works in the run directory now; asking disturbs nobody."""
    path = folder / FILE
    if fcntl is None or not path.is_file():
        return False
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False
