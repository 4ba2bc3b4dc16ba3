"""B. Provider and network: faults 13 to 23 of the matrix."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest
from conftest_faults import ROWS, SENTINEL, plan, text_of

from freeal.llm import batches
from freeal.report import history, page
from freeal.testing.plans import Delay, Rule, Status, Truncate

QUOTA = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}


def small(n=20):
    return [{"id": f"r{i}", "text": text_of(i)} for i in range(n)]


def test_13_a_rate_limit_with_a_time(bench):
    headers = {"retry-after-ms": "40"}
    bench.server.set_plan(plan(Rule(Status(429, headers, "slow down"), every=5, attempt=(1, 2))))
    assert bench.begin(llm={"attempts": 1}).code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}


def test_13_a_rate_limit_that_lasts_too_long(bench):
    bench.server.set_plan(plan(Rule(Status(429, {"retry-after": "1"}, "slow down"), nth=5)))
    said = bench.begin(llm={"max_wait": 2.0})
    assert said.code == 5
    assert "rate limit" in said.err
    bench.server.set_plan(plan())
    assert bench.resume().code == 0
    bench.check()


def test_14_a_burst_of_rate_limits(bench):
    bench.server.set_plan(plan(Rule(Status(429, {}, "slow down"), attempt=1), latency=0.005))
    assert bench.begin(rows=small()).code == 0
    assert bench.check(20)["rows"] == {"labelled": 20}


def test_15_an_empty_account(bench):
    bench.server.set_plan(plan(Rule(Status(429, {}, json.dumps(QUOTA)), nth=50)))
    said = bench.begin()
    assert said.code == 4
    assert "quota" in said.err
    asked = bench.server.stats().requests
    assert asked <= 50 + 8 + 6
    bench.check()
    bench.server.set_plan(plan())
    assert bench.resume().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    assert bench.server.stats().repeated <= 4


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_16_a_server_fault_for_a_while(bench, code):
    bench.server.set_plan(plan(Rule(Status(code, {"retry-after": "0"}, "<html>oops</html>"), every=10, attempt=(1, 2))))
    assert bench.begin().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}


def test_16_a_server_fault_for_one_row_for_ever(bench):
    bench.server.set_plan(plan(Rule(Status(500, {"retry-after": "0"}, "engine fault"), uid="r7")))
    assert bench.begin().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS - 1, "pending": 1}
    assert bench.server.stats().attempts["r7"] == 3
    first = page.failures(history.read(bench.run_folder))[0]
    assert (sum(first.by_reason.values()), first.retries) == (1, 2)


def test_17_one_row_that_hangs(bench):
    bench.server.set_plan(plan(Rule("hang", uid="r7")))
    started = time.monotonic()
    assert bench.begin(rows=small(), llm={"timeout": 0.3, "attempts": 2}).code == 0
    assert time.monotonic() - started < 8
    assert bench.check(20)["rows"] == {"labelled": 19, "pending": 1}


def test_17_a_row_has_no_more_time_than_it_is_given(bench):
    bench.server.set_plan(plan(Rule(Delay(0.4), uid="r7")))
    assert bench.begin(rows=small(), llm={"timeout": 0.2, "attempts": 99, "row_timeout": 1.0}).code == 0
    assert bench.server.stats().attempts["r7"] < 8


@pytest.mark.parametrize(
    "action", ["rst", "close_before_headers", Truncate(20), "bad_json", "html200", "empty_choices"]
)
def test_18_connections_and_bodies_that_break(bench, action):
    bench.server.set_plan(plan(Rule(action, every=9, attempt=1)))
    assert bench.begin().code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}


def test_19_a_server_that_goes_and_comes_back(bench):
    bench.server.set_plan(plan(latency=0.01))
    process = bench.start("run", bench.configure(), "--out", bench.run_folder)
    until = time.monotonic() + 60
    while sum(bench.server.stats().billed.values()) < 20 and time.monotonic() < until:
        time.sleep(0.01)
    bench.server.restart(1.5)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert bench.check()["rows"] == {"labelled": ROWS}


def test_19_a_server_that_stays_away(bench):
    config = bench.configure(llm={"base_url": "http://127.0.0.1:9/v1", "server_wait": 1.0})
    said = bench.run("run", config, "--out", bench.run_folder)
    assert said.code == 5
    assert "is the server up" in said.err


def test_20_a_wrong_key_costs_one_request_and_is_not_shown(bench):
    bench.server.set_plan(plan(key="another"))
    said = bench.begin()
    assert said.code == 4
    assert "OPENAI_API_KEY" in said.err
    assert SENTINEL not in said.err + said.out
    assert bench.server.stats().requests == 1


def test_20_a_missing_key(bench, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    said = bench.begin(llm={"base_url": "https://llm.example/v1"})
    assert said.code == 4
    assert "OPENAI_API_KEY" in said.err


def test_21_a_wrong_model_is_told_with_those_there_are(bench):
    bench.server.set_plan(plan(models=("small", "large")))
    said = bench.begin()
    assert said.code == 4
    assert "models served: large, small" in said.err


def test_21_a_wrong_place(bench):
    bench.server.set_plan(plan(Rule("html200")))
    said = bench.begin(llm={"attempts": 1})
    assert said.code == 4
    assert "with /v1" in said.err


def ways(bench):
    events = (bench.run_folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return next(e["message"] for e in map(json.loads, events) if e.get("where") == "llm")


def test_22_a_constraint_that_is_kept(bench):
    assert bench.begin(rows=small()).code == 0
    assert "held to the labels by structured_outputs" in ways(bench)


def test_22_a_constraint_that_is_ignored_is_found_out(bench):
    bench.server.set_plan(plan(Rule("ignore_constraint")))
    assert bench.begin(rows=small()).code == 0
    assert "free to say anything" in ways(bench)
    assert bench.check(20)["rows"] == {"labelled": 20}


def test_22_a_server_without_probabilities_may_be_refused(bench):
    bench.server.set_plan(plan(Rule("drop_logprobs")))
    said = bench.run("run", bench.configure(), "--require", "probabilities", "--out", bench.run_folder)
    assert said.code == 4
    assert "gives no probabilities" in said.err
    assert not bench.run_folder.exists() or not (bench.run_folder / "rounds").exists()


def test_22_json_is_the_constraint_of_a_server_that_knows_no_other(openai_bench):
    openai_bench.server.set_plan(plan(Rule("drop_logprobs")))
    assert openai_bench.begin(rows=small()).code == 0
    assert "response_format" in ways(openai_bench)
    assert openai_bench.check(20)["rows"] == {"labelled": 20}


def test_23_the_budget_is_never_exceeded(bench):
    asked = {"llm": {"price_in": 5000.0, "price_out": 5000.0}}
    said = bench.run("run", bench.configure(**asked), "--budget", "1.00", "--out", bench.run_folder)
    assert said.code == 9
    assert "of 1.0000 are spent (stop.budget); go on with:" in said.err
    assert f"freeal run --resume {bench.run_folder} --budget MORE" in said.err
    told = bench.run("status", bench.run_folder).out
    assert "of 1.0000 dollars are spent; with more:" in told
    assert f"freeal run --resume {bench.run_folder} --budget MORE" in told
    found = bench.check()
    assert 0.5 < found["usage"]["cost"] <= 1.0
    assert 0 < found["rows"]["labelled"] < ROWS
    assert bench.resume("--budget", "500").code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    assert bench.server.stats().repeated <= 4


@pytest.mark.parametrize("lost", [Truncate(40), Delay(1.0)], ids=["cut off", "too late"])
def test_23_answers_that_were_billed_and_never_came_count(bench, lost):
    bench.server.set_plan(plan(Rule(lost, every=3, attempt=(1, 2))))
    asked = {"llm": {"price_in": 5000.0, "price_out": 5000.0, "timeout": 0.3}}
    said = bench.run("run", bench.configure(**asked), "--budget", "2.00", "--out", bench.run_folder)
    assert said.code == 9
    found = bench.check()
    assert found["usage"]["doubt"] > 0
    assert found["usage"]["cost"] + found["usage"]["doubt"] <= 2.0
    probe = 4
    assert sum(bench.server.stats().billed.values()) <= found["usage"]["calls"] + found["in_doubt"] + probe


def test_23_a_budget_needs_a_price(bench):
    said = bench.run("run", bench.configure(), "--budget", "1.00", "--out", bench.run_folder)
    assert said.code == 2
    assert "--price-in" in said.err


BATCH = {"batch": True, "batch_poll": 0.02}


def test_a_batch_is_labelled_as_single_requests_are(openai_bench, tmp_path):
    bench = openai_bench
    bench.server.set_plan(plan(batch_polls=3))
    config = bench.configure(llm=BATCH)
    assert bench.run("run", config, "--out", bench.run_folder).code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    assert bench.server.stats().max_in_flight <= 1
    assert bench.run("run", bench.configure(), "--out", tmp_path / "single").code == 0
    assert bench.labels() == bench.labels(tmp_path / "single")


def test_a_batch_that_is_too_heavy_for_a_file_is_sent_in_several_and_found_again(openai_bench, tmp_path, monkeypatch):
    bench = openai_bench
    monkeypatch.setattr("freeal.llm.batches.cut", partial(batches.cut, heaviest=5_000))
    bench.server.set_plan(plan(batch_polls=2))
    assert bench.run("run", bench.configure(llm=BATCH), "--out", bench.run_folder).code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    sent = bench.server.stats().requests
    again = bench.run("run", bench.configure(llm=BATCH), "--out", tmp_path / "again")
    assert again.code == 0
    assert bench.server.stats().requests == sent + 2, "the probes"


def test_one_forbidden_row_of_a_batch_is_no_wrong_key(openai_bench):
    openai_bench.server.set_plan(plan(Rule(Status(403, {}, "blocked"), uid="r7")))
    said = openai_bench.run("run", openai_bench.configure(llm=BATCH), "--out", openai_bench.run_folder)
    assert said.code == 0, said.err
    assert openai_bench.check()["rows"] == {"failed: request refused": 1, "labelled": ROWS - 1}


def test_no_batch_holds_more_requests_than_it_may(openai_bench):
    bench = openai_bench
    bench.server.set_plan(plan())
    said = bench.run("run", bench.configure(llm=BATCH | {"batch_size": 20}), "--out", bench.run_folder)
    assert said.code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
    assert f"batch-{-(-ROWS // 20)}" in (bench.run_folder / "events.jsonl").read_text(encoding="utf-8")


def killed_once_its_batch_is_submitted(bench, *words):
    """A run that was killed while it waited for its batch; the batch is done the next time it is looked at."""
    bench.server.set_plan(plan(batch_polls=10_000))
    process = bench.start("run", bench.configure(llm=BATCH), *words, "--out", bench.run_folder)
    until = time.monotonic() + 60
    events = bench.run_folder / "events.jsonl"
    while time.monotonic() < until and not (events.is_file() and "batch-1" in events.read_text(encoding="utf-8")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    bench.server.set_plan(plan(batch_polls=1))


def test_a_batch_that_was_submitted_is_waited_for_after_a_restart(openai_bench):
    killed_once_its_batch_is_submitted(openai_bench)
    assert openai_bench.resume().code == 0
    assert openai_bench.check()["rows"] == {"labelled": ROWS}
    assert openai_bench.server.stats().repeated <= 4


def test_a_batch_is_found_again_by_a_run_that_may_make_more_calls(openai_bench):
    killed_once_its_batch_is_submitted(openai_bench, "--max-calls", 20)
    said = openai_bench.run("run", "--resume", openai_bench.run_folder, "--max-calls", ROWS)
    assert said.code == 0
    assert openai_bench.check()["rows"] == {"labelled": ROWS}
    assert openai_bench.server.stats().repeated == 0


def test_a_batch_that_cannot_be_paid_for_is_not_submitted_and_reserves_nothing(openai_bench):
    bench = openai_bench
    bench.server.set_plan(plan(batch_polls=1))
    prices = ("--price-in", "1000", "--price-out", "1000")
    said = bench.run("run", bench.configure(llm=BATCH), *prices, "--budget", "1.0", "--out", bench.run_folder)
    assert said.code == 9
    assert bench.run("status", bench.run_folder, "--json").out.count('"in_doubt": 0')
    assert bench.run("run", "--resume", bench.run_folder, "--budget", "1000").code == 0
    assert bench.check()["rows"] == {"labelled": ROWS}
