"""How fast a server is asked, with a clock that runs as fast as one waits."""

import asyncio

import pytest

from freeal.errors import LLMUnavailable
from freeal.llm.pacing import SHRINK, Clock, Outage, Pace


class Hurried(Clock):
    def __init__(self):
        self.time = 100.0

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds
        await asyncio.sleep(0)


async def all_through(pace, count, tokens=1):
    """The most requests that were in flight at once."""
    most = 0

    async def one():
        nonlocal most
        await pace.enter(tokens)
        most = max(most, pace.in_flight)
        await asyncio.sleep(0)
        pace.leave()
        pace.went_well()

    await asyncio.gather(*(one() for _ in range(count)))
    assert pace.in_flight == 0
    return most


def test_no_more_are_in_flight_than_may_be():
    assert asyncio.run(all_through(Pace(4, None, None, Hurried()), 50)) == 4


def test_a_burst_of_refusals_counts_once_and_good_replies_win_the_places_back():
    async def work():
        clock = Hurried()
        pace = Pace(10, None, None, clock)
        entered = [await pace.enter(1) for _ in range(10)]
        clock.time += 1
        for moment in entered:
            pace.slow_down(moment)
            pace.leave()
        assert pace.allowed == pytest.approx(10 * SHRINK)
        assert await all_through(pace, 40) == 10

    asyncio.run(work())


def test_there_is_always_one_place():
    async def work():
        clock = Hurried()
        pace = Pace(2, None, None, clock)
        for _ in range(30):
            clock.time += 1
            pace.slow_down(await pace.enter(1))
            pace.leave()
        assert pace.allowed == 1.0

    asyncio.run(work())


@pytest.mark.parametrize(("requests", "tokens", "seconds"), [(60.0, None, 29), (None, 600.0, 29), (60.0, 60_000.0, 29)])
def test_no_more_a_minute_than_is_allowed(requests, tokens, seconds):
    clock = Hurried()
    asyncio.run(all_through(Pace(1, requests, tokens, clock), 30, tokens=10))
    assert clock.time - 100 == pytest.approx(seconds)


def outage(answers, clock, notes, patience=60.0):
    replies = iter(answers)

    async def probe():
        return next(replies, False)

    return Outage(3, patience, probe, LLMUnavailable, clock, notes.append)


def test_failures_that_are_not_the_servers_close_nothing():
    async def work():
        notes = []
        gate = outage([], Hurried(), notes)
        for _ in range(10):
            await gate.failed("reset")
            await gate.failed("reset")
            gate.answered()
        assert (gate.spells, notes) == (0, [])

    asyncio.run(work())


def test_all_wait_until_the_server_is_back():
    async def work():
        clock, notes = Hurried(), []
        gate = outage([False, False, False, True], clock, notes)
        await asyncio.gather(*(gate.failed("gone") for _ in range(5)))
        assert gate.spells == 1
        assert clock.time > 100
        assert [note.message.split(" (")[0] for note in notes] == [
            "the server does not answer", "the server is back"
        ]  # fmt: skip
        await gate.open()

    asyncio.run(work())


def test_patience_comes_to_an_end_for_all():
    async def work():
        clock = Hurried()
        gate = outage([], clock, [], patience=45.0)
        found = await asyncio.gather(*(gate.failed("gone") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(each, LLMUnavailable) for each in found) >= 3
        assert clock.time == pytest.approx(145)

    asyncio.run(work())


def test_who_was_given_his_part_of_the_rate_takes_a_place_without_another():
    async def work():
        clock = Hurried()
        pace = Pace(2, 60.0, None, clock)
        await pace.enter(1)
        for _ in range(5):
            pace.leave()
            await pace.place()
        assert clock.time == 100
        assert pace.in_flight == 1

    asyncio.run(work())


def test_patience_lasts_as_long_as_the_server_says_it_will_be_away():
    async def work():
        clock = Hurried()
        gate = outage([], clock, [], patience=45.0)
        await asyncio.gather(*(gate.failed("gone", asked=200.0) for _ in range(3)), return_exceptions=True)
        assert clock.time == pytest.approx(300)

    asyncio.run(work())
