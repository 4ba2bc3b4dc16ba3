"""When enough is enough, without gold."""

from __future__ import annotations

from freeal.types import LoopState


def reason(state: LoopState, min_change: float, calls: int, max_calls: int | None) -> str | None:
    """Why to stop after this round, or None.

    Args:
        state: after the round; `changed` is the share of labels that are others than a round before.
        min_change: stop when fewer changed. Zero never stops.
        calls: made so far, of at most `max_calls` (None: no limit).
    """
    if max_calls is not None and calls >= max_calls:
        return f"budget: {calls:,} of {max_calls:,} calls are spent"
    if state.next_round > 1 and state.changed < min_change:
        return f"no change: {state.changed:.2%} of the labels changed, less than {min_change:.2%}"
    return None
