"""One table for what can go wrong."""

import email.utils

import pytest

from freeal.llm.faults import of_status, retry_after


@pytest.mark.parametrize(
    ("status", "code", "said", "kind", "problem"),
    [
        (401, None, "bad key", "fatal", "401"),
        (403, None, "not for you", "fatal", "403"),
        (404, "model_not_found", "no such model", "fatal", "404"),
        (429, "insufficient_quota", "pay first", "fatal", "429"),
        (400, None, "your credit balance is too low", "fatal", "400"),
        (429, None, "slow down", "rate", "rate limit"),
        (429, None, "Request too large: reduce the length", "row", "too long"),
        (408, None, "late", "transient", "server"),
        (500, None, "oops", "transient", "server"),
        (503, None, "overloaded", "transient", "server"),
        (400, None, "maximum context length is 512", "row", "too long"),
        (413, None, "payload", "row", "too long"),
        (400, "content_filter", "filtered", "row", "refused"),
        (400, None, "unknown parameter: seed", "request", "request refused"),
        (422, None, "bad body", "request", "request refused"),
    ],
)
def test_a_status_says_what_is_to_be_done(status, code, said, kind, problem):
    fault = of_status(status, code, said, {})
    assert fault.kind == kind
    assert fault.problem.startswith(problem)
    assert fault.passes == (kind in ("rate", "transient"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "121"}, 121.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"retry-after": email.utils.formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": email.utils.formatdate(999_000, usegmt=True)}, 0.0),
    ],
)
def test_the_time_to_wait_is_read_in_all_its_forms(headers, seconds):
    assert retry_after(headers, now=1_000_000) == seconds
