"""Places where a rehearsal may break the process, to see that what is on disk survives it.

    FREEAL_FAILPOINT="ledger.after_commit:37=kill9;artefact.mid_write=raise" freeal run my.yaml

kills the run right after its 37th commit. Without the variable, which is read when the process starts,
nothing happens anywhere. Actions: `kill9` and `term` send the process that signal, `exit` leaves at once with
code 70, `raise` raises the OSError of a full disk.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections import Counter
from collections.abc import Mapping
from functools import cache
from threading import Lock

from freeal.errors import ConfigError

VARIABLE = "FREEAL_FAILPOINT"

ACTIONS = ("kill9", "term", "exit", "raise")

_TOLD = os.environ.get(VARIABLE, "")
_passed: Counter[str] = Counter()
_one_at_a_time = Lock()


def failpoint(name: str) -> None:
    """Do what FREEAL_FAILPOINT says of the place `name`, this time; most often that is nothing.

    Raises:
        ConfigError: the variable cannot be understood.
        OSError: no space left on the device, if the action is `raise`.

    Example:
        >>> failpoint("ledger.after_commit")
    """
    if _TOLD:
        _pass(name)


def read_failpoints(told: str) -> Mapping[tuple[str, int], str]:
    """(name, which time it is passed) -> action.

    Raises:
        ConfigError: not of the form NAME=ACTION or NAME:TIMES=ACTION, with `;` between several.

    Example:
        >>> read_failpoints("student.mid_save=exit; ledger.after_commit:37=kill9")
        {('student.mid_save', 1): 'exit', ('ledger.after_commit', 37): 'kill9'}
    """
    found = {}
    for part in filter(None, map(str.strip, told.split(";"))):
        read = re.fullmatch(rf"([\w.]+)(?::([1-9]\d*))?=({'|'.join(ACTIONS)})", part)
        if read is None:
            raise ConfigError(
                f"{VARIABLE}: {part!r} cannot be understood; expected NAME=ACTION or NAME:TIMES=ACTION, "
                f"ACTION one of {', '.join(ACTIONS)}"
            )
        found[read[1], int(read[2] or 1)] = read[3]
    return found


@cache
def _armed() -> Mapping[tuple[str, int], str]:
    return read_failpoints(_TOLD)


def _pass(name: str) -> None:
    with _one_at_a_time:
        _passed[name] += 1
        action = _armed().get((name, _passed[name]))
    match action:
        case "kill9":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "exit":
            os._exit(70)
        case "raise":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"failpoint {name}")
