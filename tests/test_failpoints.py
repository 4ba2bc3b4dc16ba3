"""Places where a process may be broken on purpose."""

import doctest
import os
import signal
import subprocess
import sys

import pytest

from freeal import failpoints
from freeal.errors import ConfigError
from freeal.failpoints import failpoint, read_failpoints

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

SCRIPT = """
import sys
from freeal.failpoints import failpoint
for i in range(5):
    for name in ("ledger.after_commit", "student.mid_save"):
        try:
            failpoint(name)
        except OSError as error:
            print(error, flush=True)
    print(i, flush=True)
"""


def passed(told, script=SCRIPT):
    """(exit code, lines it printed, stderr) of a process that passes two places five times."""
    environment = {name: value for name, value in os.environ.items() if name != "FREEAL_FAILPOINT"}
    if told is not None:
        environment["FREEAL_FAILPOINT"] = told
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("told", [None, "", "another.place=kill9", "ledger.after_commit:6=exit"])
def test_nothing_happens_where_nothing_is_told(told):
    assert passed(told) == (0, ["0", "1", "2", "3", "4"], "")


@pytest.mark.parametrize(
    ("action", "code"), [("kill9", -signal.SIGKILL), ("term", -signal.SIGTERM), ("exit", 70)], ids=str
)
def test_the_process_ends_the_nth_time_it_passes(action, code):
    assert passed(f"student.mid_save:3={action}") == (code, ["0", "1"], "")


def test_a_full_disk_is_raised_once_and_the_first_time_if_no_time_is_told():
    code, lines, _ = passed("student.mid_save=raise")
    assert code == 0
    assert lines == ["[Errno 28] No space left on device: 'failpoint student.mid_save'", "0", "1", "2", "3", "4"]


def test_several_places_may_be_told():
    code, lines, _ = passed("student.mid_save:2=raise; ledger.after_commit:4=exit;")
    assert (code, len(lines)) == (70, 4)


def test_a_term_signal_can_be_handled():
    script = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('draining'))" + SCRIPT
    code, lines, _ = passed("student.mid_save:5=term", script)
    assert (code, sorted(lines)[-1]) == (0, "draining")


@pytest.mark.parametrize("told", ["ledger", "ledger=explode", "ledger:0=exit", "ledger:x=exit", "=exit"])
def test_what_cannot_be_understood_is_told_at_the_first_place(told):
    with pytest.raises(ConfigError, match=r"FREEAL_FAILPOINT: .* expected NAME=ACTION or NAME:TIMES=ACTION"):
        read_failpoints(told)
    assert "ConfigError" in passed(told)[2]


def test_the_variable_counts_only_when_the_process_starts(monkeypatch):
    monkeypatch.setenv("FREEAL_FAILPOINT", "here=raise")
    failpoint("here")


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(failpoints).failed == 0
