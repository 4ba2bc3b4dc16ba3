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
        (502, None, "bad gateway", "outage", "server"),
        (503, None, "overloaded", "outage", "server"),
        (504, None, "gateway timeout", "outage", "server"),
        (524, None, "a timeout occurred", "outage", "server"),
        (529, "overloaded_error", "Overloaded", "outage", "server"),
        (400, None, "maximum context length is 512", "row", "too long"),
        (413, None, "payload", "row", "too long"),
        (400, "content_filter", "filtered", "row", "refused"),
        (400, None, "unknown parameter: seed", "request", "request refused"),
        (422, None, "bad body", "request", "request refused"),
        (429, "throttling_error", "Too many tokens, please wait before trying again.", "rate", "rate limit"),
        (429, None, "Your rate limit is 40,000 input tokens. Please reduce the prompt length, or try again later.",
         "rate", "rate limit"),
        (429, None, "Request too large (TPM). The input or output tokens must be reduced.", "row", "too long"),
        (429, None, "You exceeded your current quota, please check your billing. Please retry in 17.3s.",
         "rate", "rate limit"),
        (429, None, "You exceeded your current quota, please check your plan", "fatal", "429"),
        (403, None, "This model requires moderation and your input was flagged", "row", "refused"),
        (400, "invalid_prompt", "Your prompt was flagged as violating our usage policy", "row", "refused"),
        (422, None, "`inputs` tokens + `max_new_tokens` must be <= 4097", "row", "too long"),
        (422, None, "`inputs` must have less than 1024 tokens", "row", "too long"),
        (400, None, "The input token count (9) exceeds the maximum number of tokens allowed (8)", "row", "too long"),
        (400, None, "This model's maximum prompt length is 8 but the request contains 9", "row", "too long"),
        (400, None, "litellm.ContextWindowExceededError", "row", "too long"),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", "fatal", "400"),
        (500, None, "jinja2: System role not supported", "request", "request refused"),
    ],
)  # fmt: skip
def test_a_status_says_what_is_to_be_done(status, code, said, kind, problem):
    fault = of_status(status, code, said, {})
    assert fault.kind == kind
    assert fault.problem.startswith(problem)
    assert fault.passes == (kind in ("rate", "transient", "outage"))


@pytest.mark.parametrize(
    ("status", "billed"), [(504, True), (524, True), (502, False), (503, False), (429, False), (500, False)]
)
def test_what_a_gateway_waited_for_in_vain_may_be_billed(status, billed):
    assert of_status(status, None, "no", {}).billed == billed


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Please try again in 800ms.", 0.8),
        ("Please retry after 20 seconds.", 20.0),
        ("Please try again in 1h2m3s.", 3723.0),
        ("Please try again in 5 minutes, at most 3 times", 300.0),
        ("Limit 40 s, please try again later", None),
    ],
)
def test_the_time_to_wait_may_stand_in_the_message_alone(said, seconds):
    assert of_status(429, None, said, {}).wait == seconds
    assert of_status(429, None, said, {"retry-after": "2"}).wait == 2.0


def test_a_refused_key_is_told_by_its_status_or_by_its_words():
    assert of_status(401, None, "no", {}).of_the_key
    assert of_status(400, None, "API key not valid.", {}).of_the_key
    assert not of_status(404, None, "no such model", {}).of_the_key


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
