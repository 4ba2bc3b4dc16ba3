"""One process at a time in a run directory."""

import subprocess
import sys

import pytest

from freeal.errors import LockError
from freeal.lock import RunLock, is_held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nobody is kept out there")


def test_a_second_holder_is_told_who_the_first_is(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom freeal.lock import RunLock\n"
        f"with RunLock(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        with pytest.raises(LockError, match=rf"in use by process {process.pid} on .* since "), RunLock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert is_held(tmp_path)


def test_a_directory_nobody_worked_in_is_free(tmp_path):
    assert not is_held(tmp_path)
