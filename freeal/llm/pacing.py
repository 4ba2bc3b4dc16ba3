"""How fast a server is asked: requests in flight, requests and tokens a minute, and pauses while nobody answers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from freeal.errors import FreealError
from freeal.events import Emit, Note

SHRINK = 0.8
"""What is left of the requests in flight when the server says that they are too many."""

HALF = 0.5
"""What is left of them when it is too slow, or busy: each look at whether they are still too many costs a timeout."""

LONGEST_PAUSE = 30.0
"""Seconds between two looks at whether a server is back."""


class Clock:
    """Time, for those who wait; tests have one of their own."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Pace:
    """Additive increase, multiplicative decrease (Chiu and Jain, 1989) of the requests in flight.

    Args:
        most: requests in flight at the best of times.
        requests, tokens: at most so many a minute; None for no limit.
    """

    def __init__(self, most: int, requests: float | None, tokens: float | None, clock: Clock) -> None:
        self.most, self.clock = most, clock
        self.allowed = float(most)
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._requests, self._tokens = _Rate(requests, clock), _Rate(tokens, clock)
        self._shrunk = float("-inf")

    async def enter(self, tokens: int) -> float:
        """Wait for a place, and as long as the rates ask for; gives the time of entry, for `slow_down`."""
        await self.place()
        pause = max(self._requests.take(1), self._tokens.take(tokens))
        if pause > 0:
            try:
                await self.clock.sleep(pause)
            except asyncio.CancelledError:
                self.leave()
                raise
        return self.clock.now()

    async def place(self) -> float:
        """Wait for a place alone, as who has waited for the rates before; gives the time of entry."""
        while self.in_flight >= int(self.allowed):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self.in_flight += 1
        return self.clock.now()

    def leave(self) -> None:
        self.in_flight -= 1
        self._wake()

    def went_well(self) -> None:
        self.allowed = min(self.most, self.allowed + 1 / self.allowed)
        self._wake()

    def slow_down(self, entered: float, left: float = SHRINK) -> None:
        """A request that entered then was too much; those of one burst count once."""
        if entered >= self._shrunk:
            self.allowed = max(1.0, self.allowed * left)
            self._shrunk = self.clock.now()

    def _wake(self) -> None:
        free = int(self.allowed) - self.in_flight
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


class _Rate:
    """So many a minute, spread evenly."""

    def __init__(self, per_minute: float | None, clock: Clock) -> None:
        self.seconds_each = 60.0 / per_minute if per_minute else 0.0
        self.clock, self.next = clock, 0.0

    def take(self, count: int) -> float:
        """Seconds to wait before `count` more."""
        if not self.seconds_each:
            return 0.0
        now = self.clock.now()
        wait = max(0.0, self.next - now)
        self.next = max(now, self.next) + count * self.seconds_each
        return wait


class Outage:
    """Closes when requests fail one after the other for want of a server, and opens when a probe is answered.

    Args:
        after: failures in a row, with no answer between them, that close it.
        patience: seconds to wait for the server before the work is given up.
        probe: asks the server for something small; whether it answered.
        gone: the error to raise when patience is at an end, from what is wrong.
    """

    def __init__(
        self,
        after: int,
        patience: float,
        probe: Callable[[], Awaitable[bool]],
        gone: Callable[[str], FreealError],
        clock: Clock,
        emit: Emit,
    ) -> None:
        self.after, self.patience, self.probe, self.gone = after, patience, probe, gone
        self.clock, self.emit = clock, emit
        self.spells = 0
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None

    def answered(self) -> None:
        self._failures = 0

    async def failed(self, problem: str, asked: float = 0.0) -> None:
        """One more failure. Returns when it is worth trying again; raises `gone` if it no longer is.

        Args:
            asked: seconds for which the server says it will be away: patience lasts at least as long.
        """
        self._failures += 1
        if self._probing is None and self._failures >= self.after:
            self._probing = asyncio.create_task(self._wait_for_server(problem, max(self.patience, asked)))
        await self.open()

    async def open(self) -> None:
        """Return at once if the server is there; else when it is back."""
        if self._probing is not None:
            await asyncio.shield(self._probing)

    async def _wait_for_server(self, problem: str, patience: float) -> None:
        given_up, pause = self.clock.now() + patience, 0.5
        if not await self.probe():
            self.spells += 1
            self.emit(Note(f"the server does not answer ({problem}); waiting for it", "llm"))
            while not await self.probe():
                left = given_up - self.clock.now()
                if left <= 0:
                    raise self.gone(f"{problem}; waited {patience:g} s (llm.server_wait, or as it asked)")
                await self.clock.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            self.emit(Note("the server is back", "llm"))
        self._failures, self._probing = 0, None
