"""Finding the batch that was paid for, among those of an account."""

import asyncio
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("openai", reason="the package openai is not installed")
from freeal.llm import batches

BODIES = [{"model": "tiny", "messages": [{"role": "user", "content": text}]} for text in ("a", "b")]
IDS = [batches.id_of(body) for body in BODIES]


def batch(name, status="completed", output="out", source="in"):
    metadata = {"freeal": batches._name(BODIES)}
    return SimpleNamespace(id=name, status=status, output_file_id=output, input_file_id=source, metadata=metadata)


def account(*found):
    async def listed():
        for each in found:
            yield each

    return SimpleNamespace(batches=SimpleNamespace(list=lambda limit: listed()))


def reads(files):
    async def read(name):
        return files.get(name, "")

    return read


def held(client, wanted, files):
    return asyncio.run(batches.holding(client, set(wanted), reads(files)))


@pytest.mark.parametrize(
    ("status", "output", "there"),
    [("in_progress", None, True), ("completed", "out", True), ("completed", None, False), ("failed", None, False)],
)
def test_a_batch_of_which_nothing_good_will_come_is_not_found_again(status, output, there):
    found = asyncio.run(batches.find(account(batch("b1", status, output)), BODIES))
    assert (found is not None) == there


def test_a_batch_is_found_by_any_of_its_requests():
    lines = "\n".join(json.dumps({"custom_id": uid}) for uid in IDS)
    ((found, ids),) = held(account(batch("b1")), IDS[:1], {"in": lines})
    assert (found.id, ids) == ("b1", set(IDS))


def test_a_batch_whose_file_is_gone_holds_nothing():
    assert held(account(batch("b1", source="deleted")), IDS, {}) == []


def test_nothing_is_read_when_nothing_is_wanted():
    async def read(name):
        raise AssertionError(name)

    assert asyncio.run(batches.holding(account(batch("b1")), set(), read)) == []
