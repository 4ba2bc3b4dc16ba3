"""A run that is killed in the middle of a round is resumed as if nothing had happened."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

FREEAL = [sys.executable, "-c", "from freeal.cli import main; main()"]
WORDS = {"good": ["fine", "lovely", "charming"], "bad": ["awful", "dull", "boring"]}
PATIENCE = 120
ROWS = 200

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@pytest.fixture
def configuration(tmp_path):
    """Two rounds over two hundred rows; many folds keep each round busy for a while."""
    words = [word for pair in zip(*WORDS.values(), strict=True) for word in pair]
    lines = [{"id": f"r{i}", "text": f"film {i} was {words[i % 6]}, scene {i % 7} too"} for i in range(ROWS)]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    prompt = "---\nlabels: [good, bad]\n---\n## user\n{{ text }}\n\n## assistant\n{{ label }}\n"
    (tmp_path / "prompt.md").write_text(prompt, encoding="utf-8")
    settings = {
        "rounds": 2, "prompt": "prompt.md", "data": {"pool": "pool.jsonl"}, "query": {"kind": "all"},
        "llm": {"kind": "scripted", "keywords": WORDS, "noise": 0.2, "unreadable": 0.05},
        "embedder": {"kind": "tfidf"}, "student": {"kind": "linear", "folds": 40}, "stop": {"min_change": 0.0},
    }  # fmt: skip
    (tmp_path / "film.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path / "film.yaml"


def freeal(*words):
    done = subprocess.run([*FREEAL, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def kept(folder):
    """(key, work) of every reply in the ledger of a run, be it still running."""
    if not (folder / "ledger.sqlite").is_file():
        return {}
    ledger = sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)
    try:
        return dict(ledger.execute("SELECT key, work FROM requests WHERE state = 'read'"))
    except sqlite3.OperationalError:  # its tables are not made yet
        return {}
    finally:
        ledger.close()


def kill_in_round_1(configuration, folder: Path):
    """Start a run and kill it as soon as replies of round 1 are kept."""
    process = subprocess.Popen(
        [*FREEAL, "run", str(configuration), "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + PATIENCE
    while not ((folder / "rounds" / "00").is_dir() and "round 1" in kept(folder).values()):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "round 1 never began"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def times(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_killed_run_goes_on_where_it_was(configuration, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    kill_in_round_1(configuration, killed)
    assert not (killed / "rounds" / "01").exists()
    assert not (killed / "labels.parquet").exists()
    paid, finished = kept(killed), times(killed / "rounds" / "00")

    freeal("run", "--resume", killed)
    freeal("run", configuration, "--out", straight)
    for name in ("labels.parquet", "labels.csv", "rounds/01/posterior.parquet", "rounds/01/annotations.parquet"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    assert times(killed / "rounds" / "00") == finished
    assert kept(killed) == kept(straight)
    assert paid.items() <= kept(killed).items()
    calls = [
        json.loads((run / "summary.json").read_text(encoding="utf-8"))["usage"]["calls"] for run in (killed, straight)
    ]
    assert calls[0] == calls[1] == ROWS // 4 + ROWS, "the scout, and then all"
