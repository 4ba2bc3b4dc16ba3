"""A. Process and storage: faults 1 to 11 of the matrix."""

from __future__ import annotations

import json
import pickle
import signal
import sqlite3
import time

import pytest
from conftest_faults import ROWS, connected, plan, text_of

from freeal.testing.plans import KillClient, Rule

GONE = -signal.SIGKILL


def test_01_killed_while_labelling(bench, tmp_path):
    """Nothing kept is asked again; at most what was under way is paid twice."""
    bench.server.set_plan(plan(latency=0.02))
    config = bench.configure()
    process = bench.start("run", config, "--out", bench.run_folder)
    bench.server.set_plan(plan(Rule(KillClient(process.pid), nth=37), latency=0.02))
    assert process.wait(60) == GONE
    paid = sum(bench.server.stats().billed.values())
    bench.server.set_plan(plan(latency=0.02))
    assert bench.resume().code == 0
    bench.check()
    stats = bench.server.stats()
    assert 30 < paid < ROWS
    assert stats.repeated <= 8 + 4  # the probe's questions are asked by every process that knows no answer yet
    assert stats.max_in_flight == 8
    straight = bench.run("run", config, "--out", tmp_path / "straight")
    assert straight.code == 0
    assert bench.labels() == bench.labels(tmp_path / "straight")


def test_02_killed_between_reply_and_commit(bench):
    process = bench.start(
        "run", bench.configure(), "--out", bench.run_folder, FREEAL_FAILPOINT="ledger.before_commit:4=kill9"
    )
    assert process.wait(60) == GONE
    said = bench.resume()
    assert said.code == 0
    found = bench.check()
    assert found["rows"] == {"labelled": ROWS}
    assert bench.server.stats().repeated <= 8 + 4
    assert "may have been paid for" in said.err or bench.server.stats().repeated <= 4


DONE = (0, 3)
"""How a run with the tiny encoder ends: it knows none of the words, learns one label, and that is told."""


def encoder(path, **settings):
    """A real student, small and quick."""
    return {"kind": "transformer", "model": str(path), "epochs": 2, "batch_size": 8, **settings}


def test_03_killed_while_training(bench, tiny_encoder, tmp_path):
    config = bench.configure(student=encoder(tiny_encoder))
    process = bench.start("run", config, "--out", bench.run_folder, FREEAL_FAILPOINT="student.step:5=kill9")
    assert process.wait(120) == GONE
    before = bench.server.stats().requests
    assert bench.resume().code in DONE
    assert bench.server.stats().requests == before
    assert bench.run("run", config, "--out", tmp_path / "straight", "--reuse", bench.run_folder).code in DONE
    assert bench.labels() == bench.labels(tmp_path / "straight")


@pytest.mark.parametrize("place", ["artefact.mid_write", "student.mid_save"])
def test_04_killed_while_writing_a_round(bench, place):
    process = bench.start("run", bench.configure(), "--out", bench.run_folder, FREEAL_FAILPOINT=f"{place}=kill9")
    assert process.wait(60) == GONE
    before = bench.server.stats().requests
    assert bench.resume().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    assert bench.server.stats().requests == before
    assert not list(bench.run_folder.rglob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_05_interrupted(bench, number):
    bench.server.set_plan(plan(latency=0.05))
    process = bench.start("run", bench.configure(llm={"concurrency": 2}), "--out", bench.run_folder)
    until = time.monotonic() + 60
    while sum(bench.server.stats().billed.values()) < 12 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert f"go on with:  freeal run --resume {bench.run_folder}" in err
    assert bench.check()["in_doubt"] == 0
    assert bench.resume().code == 0
    assert bench.server.stats().repeated <= 4


def test_06_disk_full_for_the_ledger(bench):
    bench.server.set_plan(plan(latency=0.01))
    process = bench.start("run", bench.configure(), "--out", bench.run_folder, largest_file=150_000)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 8, err
    assert "ledger.sqlite" in err
    assert "make room" in err
    assert 0 < bench.check()["rows"]["labelled"] < ROWS
    assert bench.resume().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    assert bench.server.stats().repeated <= 8 + 4


def test_07_disk_full_for_the_round(bench):
    config = bench.configure()
    process = bench.start("run", config, "--out", bench.run_folder, FREEAL_FAILPOINT="artefact.mid_write=raise")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 8, err
    before = bench.server.stats().requests
    assert bench.resume().code == 0
    assert bench.server.stats().requests == before


def test_08_two_processes_in_one_run(bench):
    bench.server.set_plan(plan(latency=0.2))
    first = bench.start("run", bench.configure(), "--out", bench.run_folder)
    until = time.monotonic() + 60
    while not (bench.run_folder / "ledger.sqlite").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    second = bench.resume()
    assert second.code == 6
    assert f"process {first.pid}" in second.err
    said = bench.run("status", bench.run_folder, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["state"] == "running"
    first.kill()
    assert first.wait() == GONE
    bench.server.set_plan(plan())
    assert bench.resume().code == 0
    bench.check()


@pytest.mark.parametrize("change", ["seed=1", "llm.model=small", "calibration.kind=none"])
def test_09_settings_changed_that_change_answers(bench, change):
    assert bench.begin(rounds=2).code == 0
    said = bench.resume("--set", change)
    assert said.code == 7
    assert change.split("=")[0] in said.err
    assert "--fork" in said.err
    bench.check()


def test_09_the_prompt_changed(bench):
    assert bench.begin().code == 0
    (bench.folder / "prompt.md").write_text(
        (bench.folder / "prompt.md").read_text().replace("{{ text }}", "Is: {{ text }}")
    )
    said = bench.run("run", "--resume", bench.folder / "films.yaml", "--out", bench.run_folder)
    assert said.code == 7
    assert "prompt" in said.err


def test_09_settings_changed_that_change_no_answer(bench):
    assert bench.begin().code == 0
    said = bench.resume("--set", "llm.concurrency=3", "--set", "llm.timeout=9")
    assert said.code == 0
    assert "llm.concurrency: 8 → 3" in (bench.run_folder / "events.jsonl").read_text(encoding="utf-8")


def test_09_a_fork_pays_for_nothing_it_has(bench):
    assert bench.begin().code == 0
    before = sum(bench.server.stats().billed.values())
    said = bench.run(
        "run", "--fork", bench.run_folder, "--set", "calibration.kind=none", "--out", bench.folder / "fork", "--json"
    )
    assert said.code == 0, said.err
    assert json.loads(said.out)["usage"]["calls"] == 0
    assert sum(bench.server.stats().billed.values()) <= before + 4  # the probe's


def rows(*numbers):
    return [{"id": f"r{i}", "text": text_of(i)} for i in numbers]


def test_10_rows_in_another_order_are_the_same_run(bench):
    assert bench.begin(rows=rows(*range(20))).code == 0
    before = bench.labels()
    bench.configure(rows=rows(*reversed(range(20))))
    assert bench.resume().code == 0
    assert bench.labels() == before


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (rows(*range(19)), "1 removed (r19)"),
        ([*rows(*range(19)), {"id": "r19", "text": "another"}], "1 edited (r19)"),
        (rows(*range(21)), "1 added (r20)"),
    ],
)
def test_10_other_rows_are_told_by_id(bench, now, told):
    assert bench.begin(rows=rows(*range(20))).code == 0
    bench.configure(rows=now)
    said = bench.resume()
    assert said.code == 7
    assert told in said.err
    bench.check(20)


def test_11_a_ledger_that_is_no_ledger(bench):
    assert bench.begin().code == 0
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (bench.run_folder / name).unlink(missing_ok=True)
    (bench.run_folder / "ledger.sqlite").write_bytes(b"not a database" * 100)
    said = bench.resume()
    assert said.code == 8
    assert "ledger.sqlite" in said.err


def test_11_what_can_be_read_of_a_damaged_ledger_is_saved(bench):
    assert bench.begin().code == 0
    before, labels = bench.server.stats().requests, bench.labels()
    path = bench.run_folder / "ledger.sqlite"
    with connected(bench.run_folder) as ledger:
        leaves = "SELECT pageno FROM dbstat WHERE name = 'requests' AND pagetype = 'leaf'"
        page = [row[0] for row in ledger.execute(leaves)][1]
    raw = bytearray(path.read_bytes())
    raw[(page - 1) * 4096 : page * 4096] = b"\x07" * 4096
    path.write_bytes(raw)
    said = bench.run("repair", bench.run_folder)
    assert said.code == 0
    assert "ledger: " in said.out
    assert (bench.run_folder / "ledger.damaged.sqlite").read_bytes() == raw
    assert "nothing is damaged" in bench.run("repair", bench.run_folder).out
    (bench.run_folder / "rounds/00").rename(bench.run_folder / "rounds/00.gone")
    assert bench.resume().code == 0
    assert bench.labels() == labels
    again = bench.server.stats().requests - before
    assert again < ROWS, "what could be read is not asked again"


def test_04_a_student_that_is_cut_short_is_told_and_trained_again(bench, tiny_encoder):
    assert bench.begin(student=encoder(tiny_encoder)).code in DONE
    before, labels = bench.server.stats().requests, bench.labels()
    weights = bench.run_folder / "rounds/00/student/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    said = bench.run("predict", bench.run_folder, bench.folder / "pool.jsonl")
    assert said.code == 8
    assert "model.safetensors" in said.err
    assert "freeal repair" in said.err
    assert "model.safetensors" in bench.run("repair", bench.run_folder).out
    assert bench.resume().code in DONE
    assert bench.labels() == labels
    assert bench.server.stats().requests == before
    assert bench.run("predict", bench.run_folder, bench.folder / "pool.jsonl").code in DONE


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "rng_state.pth", "posterior.npy"])
def test_12_nothing_that_runs_code_is_opened(bench, tiny_encoder, tmp_path, name):
    assert bench.begin(student=encoder(tiny_encoder)).code in DONE
    student, mark = bench.run_folder / "rounds/00/student", tmp_path / "it-ran"
    (bench.run_folder / "rounds/00/sha256.json").unlink()  # whoever plants a file does not leave the sums as they were
    (student / name).write_bytes(pickle.dumps(Payload(mark)))
    if name == "pytorch_model.bin":
        (student / "model.safetensors").unlink()
        about = json.loads((student / "config.json").read_text(encoding="utf-8"))
        about["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
        (student / "config.json").write_text(json.dumps(about), encoding="utf-8")
        (student / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: ...", encoding="utf-8")
    said = bench.run("predict", bench.run_folder, bench.folder / "pool.jsonl")
    assert said.code == (2 if name == "pytorch_model.bin" else 0), said.err
    assert bench.resume().code in DONE
    assert not mark.exists()


def test_11_a_ledger_of_a_newer_freeal(bench):
    assert bench.begin().code == 0
    with sqlite3.connect(bench.run_folder / "ledger.sqlite") as ledger:
        ledger.execute("PRAGMA user_version = 999")
    said = bench.resume()
    assert said.code == 8
    assert "newer freeal" in said.err
