"""When enough is enough, without gold."""

from __future__ import annotations

from freeal.config import StopConfig
from freeal.select.calibration import information
from freeal.tasks import Task
from freeal.types import LoopState


def least_information(stop: StopConfig, task: Task) -> float:
    """What the LLM's first answers must tell at least; nothing, where they are alike by nature."""
    return 0.0 if task.alike_by_nature else stop.min_information


def reason(
    state: LoopState,
    min_change: float,
    calls: int,
    max_calls: int | None,
    min_information: float,
    taken_over: bool = False,
    calls_a_row: int = 1,
) -> str | None:
    """Why to stop after this round, or None.

    Args:
        state: after the round; `changed` is the share of labels that are others than a round before.
        min_change: stop when fewer changed, once every row was asked. Zero never stops.
        calls: made so far, of at most `max_calls` (None: no limit).
        min_information: stop when the LLM's first answers tell less of the labels: more of them are wasted.
        taken_over: somebody else already labels the pool in the place of an LLM that tells little.
        calls_a_row: that one more row costs at most; where fewer are left, none can be asked.
    """
    if max_calls is not None and max_calls - calls < calls_a_row:
        short = f", and a row takes {calls_a_row}" if calls < max_calls else ""
        return f"budget: {calls:,} of {max_calls:,} calls are spent{short}"
    told_apart = information(state.annotations.first)
    if told_apart is not None and (taken_over or told_apart < min_information):
        return f"the LLM hardly tells the labels apart ({told_apart:.1%} of what it might tell)"
    everywhere = bool((state.annotations.asked_in >= 0).all())
    if state.next_round > 1 and everywhere and state.changed < min_change:
        return f"no change: {state.changed:.2%} of the labels changed, less than {min_change:.2%}"
    return None
