"""Any faults in any order: the invariants hold, and the labels are those of a day without faults."""

from __future__ import annotations

from conftest_faults import Bench, plan, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freeal.testing.faultllm import serving
from freeal.testing.plans import Content, Delay, Rule, Status, Truncate

N = 30
SOON = {"retry-after-ms": "5"}
ACTIONS = (
    "rst", "close_before_headers", "html200", "bad_json", "empty_choices", "no_usage", Truncate(30), Delay(0.01),
    Status(429, SOON, "slow down"), Status(500, SOON, "oops"), Status(503, SOON, "busy"), Status(408, SOON, "late"),
    Status(401, {}, "bad key"), Status(429, {}, '{"error": {"message": "pay", "code": "insufficient_quota"}}'),
    Content(""), Content("no idea"),
)  # fmt: skip


@st.composite
def rules(draw):
    where = draw(st.sampled_from(["nth", "every"]))
    first = draw(st.integers(1, 3))
    return Rule(
        draw(st.sampled_from(ACTIONS)),
        **{where: draw(st.integers(2, N))},
        attempt=(first, first + draw(st.integers(0, 1))),
    )


@settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
@given(faults=st.lists(rules(), max_size=8))
def test_any_faults_and_then_none(faults, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SENTINEL-4f1d")
    folder = tmp_path_factory.mktemp("faults")
    rows = [{"id": f"r{i}", "text": text_of(i)} for i in range(N)]
    with serving(plan(*faults, rows=N), "vllm") as server:
        bench = Bench(folder, server)
        config = bench.configure(rows=rows, llm={"concurrency": 4, "attempts": 2, "timeout": 1.0, "server_wait": 1.0})
        said = bench.run("run", config, "--out", bench.run_folder)
        assert said.code in (0, 3, 4, 5), said.err
        server.set_plan(plan(rows=N))
        if not (bench.run_folder / "config.yaml").exists():
            return  # refused before anything was paid for
        if not (bench.run_folder / "rounds/00").exists():
            again = bench.resume()
            assert again.code == 0, again.err
        found = bench.check(N)
        assert found["whole_rounds"] == 1
        before = server.stats().requests
        assert bench.resume().code in (0, 3)
        assert server.stats().requests == before
