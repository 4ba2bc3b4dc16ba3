"""What happens is told to all who listen."""

import json

from freeal.events import JsonLines, Note, Progress, RoundFinished, RunFinished, fan_out, ignore


def test_every_listener_hears_every_event_in_order():
    one, other = [], []
    emit = fan_out([one.append, ignore, other.append])
    for event in (Note("a"), Note("b")):
        emit(event)
    assert one == other == [Note("a"), Note("b")]


def test_events_are_kept_a_line_each_with_their_time(tmp_path):
    keep = JsonLines(tmp_path / "events.jsonl", clock=lambda: 12.3456)
    keep(Note("3 rows “skipped”\n", "data"))
    keep(RoundFinished(0, {"clean": 0.5}))
    keep(RunFinished("3 rounds are done"))
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in lines] == ["Note", "RoundFinished", "RunFinished"]
    assert lines[0] == {"time": 12.346, "event": "Note", "message": "3 rows “skipped”\n", "where": "data"}
    assert lines[1]["figures"] == {"clean": 0.5}


def test_progress_is_not_kept(tmp_path):
    JsonLines(tmp_path / "events.jsonl")(Progress("labelling", 1, 2))
    assert not (tmp_path / "events.jsonl").exists()


def test_a_resumed_run_adds_to_what_is_there(tmp_path):
    for _ in range(2):
        JsonLines(tmp_path / "events.jsonl")(Note("started"))
    assert len((tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()) == 2
