"""The command line, called in this process."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from freeal.cli import main


@dataclass(frozen=True)
class Said:
    """What one call of the command line gave back."""

    code: int
    out: str
    err: str


def freeal(*words: object) -> Said:
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["freeal", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as stop:
        code = 0 if stop.code is None else int(stop.code)
    finally:
        sys.argv = before
    return Said(code, out.getvalue(), err.getvalue())
