"""Finding the batch that was paid for, among those of an account."""

import asyncio
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("openai", reason="the package openai is not installed")
from freeal.errors import LLMUnavailable
from freeal.llm import batches
from freeal.llm.pacing import Clock

BODIES = [{"model": "tiny", "messages": [{"role": "user", "content": text}]} for text in ("a", "b")]
IDS = [batches.id_of(body) for body in BODIES]


def batch(name, status="completed", output="out", source="in"):
    metadata = {"freeal": batches._name(BODIES)}
    return SimpleNamespace(id=name, status=status, output_file_id=output, input_file_id=source, metadata=metadata)


class Now(Clock):
    async def sleep(self, seconds):
        await asyncio.sleep(0)


def collected(status, files=None, errors=None):
    """What is read of a batch, of which `files` are the output and the errors, as lines."""
    out, wrong = (files or {}).get("out"), (files or {}).get("wrong")
    done = SimpleNamespace(
        id="b1", status=status, output_file_id="out" if out else None, error_file_id="wrong" if wrong else None,
        request_counts=None, errors=errors,
    )  # fmt: skip

    async def content(name):
        return SimpleNamespace(text="\n".join(map(json.dumps, files[name])))

    client = SimpleNamespace(files=SimpleNamespace(content=content))
    return asyncio.run(batches.collect(client, done, 1.0, Now(), lambda event: None))


GOOD = {"custom_id": "u1", "response": {"status_code": 200, "body": {"choices": []}}}


@pytest.mark.parametrize(
    "line",
    [
        {"custom_id": "u2", "response": {"body": {}}}, {"response": GOOD["response"]}, {"message": "?"}, [], "?",
        {"custom_id": "u2", "response": "?"}, {"custom_id": "u2", "response": {"status_code": None, "body": {}}},
        {"custom_id": "u2", "response": {"status_code": 200}}, GOOD | {"custom_id": None},
    ],
)  # fmt: skip
def test_a_line_that_does_not_say_what_became_of_which_request_is_left_out(line):
    assert set(collected("completed", {"out": [GOOD, line]})) == {"u1"}


def test_a_request_that_expired_is_told_as_such():
    expired = {"custom_id": "u1", "response": None, "error": {"code": "batch_expired"}}
    assert collected("expired", {"wrong": [expired]})["u1"][0] == 500


@pytest.mark.parametrize(
    ("errors", "advice"),
    [
        ({"data": [{"message": "Enqueued token limit reached for gpt-4o-mini"}]}, "llm.batch_size"),
        ({"data": [{"code": "file_too_large"}]}, "llm.batch_size"),
        ({"data": [{"code": "odd"}]}, "resume to submit it again"),
    ],
)
def test_a_batch_that_was_too_large_is_told_with_how_to_make_it_smaller(errors, advice):
    with pytest.raises(LLMUnavailable, match=advice):
        collected("failed", errors=errors)


def test_requests_that_are_too_heavy_for_one_file_are_cut_in_order():
    weight = len(batches._line(BODIES[0]))
    assert list(batches.cut(BODIES * 3, heaviest=2 * weight)) == [[0, 1], [2, 3], [4, 5]]
    assert list(batches.cut(BODIES, heaviest=1)) == [[0], [1]], "a request is not cut"
    assert list(batches.cut([])) == []


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
