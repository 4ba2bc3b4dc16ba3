"""What the model behind a fault server says: labels, their probabilities, refusals, and answers that are bent."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from freeal.testing.plans import (
    Action,
    Constant,
    Content,
    Dialect,
    Finish,
    Label,
    Noise,
    PartialLogprobs,
    Plan,
    Refusal,
    Row,
    WrongModelEcho,
)

KNOWN = {
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "messages", "metadata", "modalities", "model", "n", "parallel_tool_calls", "prediction",
    "presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed",
    "service_tier", "stop", "store", "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p",
    "user", "verbosity", "web_search_options",
}  # fmt: skip
"""Fields of a request that the dialect `openai` does not refuse; `stream` is refused by both."""

MOST_LOGPROBS = 20
"""Candidates a token: the most OpenAI gives, and vLLM unless started with more."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One response: a str is HTML, bytes are a file, all else is JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def last_user_message(asked: Mapping[str, Any]) -> str:
    """The text of the last user turn.

    Raises:
        ValueError: there is none.
    """
    turns = reversed(asked.get("messages", []))
    content = next((turn.get("content") for turn in turns if turn.get("role") == "user"), None)
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    if not isinstance(content, str):
        raise ValueError("expected a user message with text")
    return content


def failure(
    dialect: Dialect, status: int, message: str = "", param: str | None = None, code: str | None = None
) -> Sent:
    """An error object as the dialect words it.

    Example:
        >>> failure("vllm", 404, "The model `x` does not exist.").body["error"]["type"]
        'NotFoundError'
    """
    phrase = http.client.responses.get(status, "Fault")
    if dialect == "vllm":
        kind = phrase.removesuffix(" Error").replace(" ", "") + "Error"
        return Sent({"error": {"message": message or phrase, "type": kind, "param": param, "code": status}}, status)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind, code = "requests", code or "rate_limit_exceeded"
    return Sent({"error": {"message": message or phrase, "type": kind, "param": param, "code": code}}, status)


def refused(plan: Plan, dialect: Dialect, asked: Mapping[str, Any], key: str) -> Sent | None:
    """How the server refuses a request for its own sake, or None: wrong key, model, field, size."""
    vllm, model = dialect == "vllm", asked.get("model")
    if plan.key is not None and key != plan.key:
        if vllm:
            return Sent({"error": "Unauthorized"}, 401)
        return failure(dialect, 401, f"Incorrect API key provided: {key[:3]}***.", code="invalid_api_key")
    if plan.models and model not in plan.models:
        more = "." if vllm else " or you do not have access to it."
        return failure(dialect, 404, f"The model `{model}` does not exist{more}", "model", "model_not_found")
    unknown = set(asked) & set(plan.refuses) | (set() if vllm else set(asked) - KNOWN)
    strange = ["stream"] if asked.get("stream") else sorted(unknown - {"stream"})
    if strange:
        return failure(dialect, 400, f"Unknown parameter: '{strange[0]}'.", strange[0], "unknown_parameter")
    if (wanted := asked.get("top_logprobs") or 0) > MOST_LOGPROBS:
        message = f"Requested {wanted} top_logprobs, which is greater than max allowed: {MOST_LOGPROBS}"
        return failure(dialect, 400, message, "top_logprobs", "integer_above_max_value")
    return None if plan.context is None else _too_long(plan.context, dialect, asked)


def _too_long(context: int, dialect: Dialect, asked: Mapping[str, Any]) -> Sent | None:
    prompt = _prompt_tokens(asked)
    room = asked.get("max_completion_tokens") or asked.get("max_tokens") or 0
    if prompt + room <= context:
        return None
    if dialect == "vllm":
        message = (
            f"You passed {prompt} input tokens and requested {room} output tokens. However, the model's context "
            f"length is only {context} tokens, resulting in a maximum input length of {max(0, context - room)} tokens. "
            "Please reduce the length of the input prompt."
        )
    else:
        message = (
            f"This model's maximum context length is {context} tokens. However, you requested {prompt + room} tokens "
            f"({prompt} in the messages, {room} in the completion). Please reduce the length of the messages."
        )
    return failure(dialect, 400, message, "messages", "context_length_exceeded")


class Judgement(NamedTuple):
    """What the model believes; `sure` if the keywords say so, too."""

    label: str
    sure: bool


def judge(plan: Plan, text: str, choices: Sequence[str] = ()) -> Judgement:
    """The label of a text, by the plan's mode.

    Example:
        >>> judge(Plan(keywords={"good": ["fine"], "bad": ["dull"]}, mode="permuted"), "a fine film")
        Judgement(label='bad', sure=False)
    """
    names = _names(plan, choices)
    right, k = _oracle(plan, text, names), len(names)
    label = names[right]
    match plan.mode:
        case Constant(name):
            label = name
        case Noise(p, seed) if k > 1 and _dice("noise", seed, text) < p:
            label = names[(right + 1 + int(_dice("other", seed, text) * (k - 1))) % k]
        case "permuted":
            label = names[(right + 1) % k]
        case "adversary":
            label = _instructed(text, names) or label
    return Judgement(label, label == names[right])


def _names(plan: Plan, choices: Sequence[str]) -> tuple[str, ...]:
    return tuple(plan.keywords) or tuple(choices) or ("ok",)


def _oracle(plan: Plan, text: str, names: Sequence[str]) -> int:
    """Index of the label whose keywords occur most often; the dice choose among equals."""
    low = text.casefold()
    hits = [sum(low.count(word.casefold()) for word in plan.keywords.get(name, ())) for name in names]
    best = [index for index, count in enumerate(hits) if count == max(hits)]
    return best[int(_dice("tie", text) * len(best))]


def _instructed(text: str, names: Sequence[str]) -> str | None:
    """The label that the text itself tells a reader to give."""
    wanted = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    verbs = r"\b(?:ignore|answer|reply|respond|output|label|classify|say|write)\b"
    found = re.search(rf"{verbs}.{{0,80}}?(?<!\w)({wanted})(?!\w)", text, re.IGNORECASE | re.DOTALL)
    return next((name for name in names if found and name.casefold() == found[1].casefold()), None)


def _dice(*what: object) -> float:
    """A number in [0, 1) that depends on `what` alone."""
    told = "\x1f".join(map(str, what)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") / 2**64


@dataclass(frozen=True, slots=True)
class _Constraint:
    """What an answer has to look like; empty where anything goes."""

    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


def _constraint(dialect: Dialect, asked: Mapping[str, Any]) -> _Constraint:
    if dialect == "vllm" and (choices := (asked.get("structured_outputs") or {}).get("choice")):
        return _Constraint(tuple(choices))
    form = asked.get("response_format") or {}
    if form.get("type") != "json_schema":
        return _Constraint()
    schema = (form.get("json_schema") or {}).get("schema") or {}
    return _Constraint(tuple(_enum(schema)), schema)


def _enum(schema: Mapping[str, Any]) -> list[str]:
    """The first list of strings that a schema allows."""
    if names := [name for name in schema.get("enum", ()) if isinstance(name, str)]:
        return names
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return next((found for part in inner if (found := _enum(part))), [])


def _object(plan: Plan, schema: Mapping[str, Any], label: str, text: str) -> Any:
    """A value that obeys the schema; `entities` that it wants are the keywords in the text, under their labels."""
    if "entities" not in schema.get("properties", {}):
        return _fill(schema, label)
    found = [
        (found.start(), found[0], name)
        for name, words in plan.keywords.items()
        for found in (re.search(rf"\b{re.escape(word)}\b", text) for word in words) if found
    ]  # fmt: skip
    return {"entities": [{"text": words, "type": name} for _, words, name in sorted(found)]}


def _fill(schema: Mapping[str, Any], label: str) -> Any:
    """A value that obeys the schema: the label wherever it is allowed."""
    if "enum" in schema:
        return label if label in schema["enum"] else schema["enum"][0]
    if "properties" in schema:
        return {name: _fill(part, label) for name, part in schema["properties"].items()}
    if "items" in schema:
        return [_fill(schema["items"], label)]
    return {"string": label, "number": 0.0, "integer": 0, "boolean": False, "array": []}.get(schema.get("type", ""))


def complete(
    plan: Plan, dialect: Dialect, asked: Mapping[str, Any], row: Row, actions: Iterable[Action], number: int = 1
) -> dict[str, Any]:
    """A chat completion, with what `actions` does to it.

    Example:
        >>> asked = {"model": "tiny", "messages": [{"role": "user", "content": "a fine film"}]}
        >>> plan = Plan(keywords={"good": ["fine"], "bad": ["dull"]})
        >>> body = complete(plan, "vllm", asked, plan.row("a fine film"), [])
        >>> body["choices"][0]["message"]["content"]
        'good'
    """
    actions = tuple(actions)
    choice, out = _choice(plan, dialect, asked, row, actions)
    prompt = _prompt_tokens(asked)
    body = {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": asked.get("model"),
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out},
    }  # fmt: skip
    for action in actions:
        _bend(body, choice, action)
    return body


class _Choice(NamedTuple):
    """An element of `choices`, and its length in tokens."""

    choice: dict[str, Any]
    tokens: int


def _choice(plan: Plan, dialect: Dialect, asked: Mapping[str, Any], row: Row, actions: tuple[Action, ...]) -> _Choice:
    bound = _Constraint() if "ignore_constraint" in actions else _constraint(dialect, asked)
    told = next((action.name for action in actions if isinstance(action, Label)), None)
    label, sure = judge(plan, row.text, bound.choices) if told is None else (told, False)
    if bound.choices and label not in bound.choices:
        label, sure = bound.choices[int(_dice("constraint", row.text) * len(bound.choices))], False
    text = json.dumps(_object(plan, bound.schema, label, row.text), ensure_ascii=False) if bound.schema else label
    tokens = _tokens(text)
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or len(tokens)
    logprobs = None
    if asked.get("logprobs"):
        p = 0.55 + (0.44 if sure else 0.25) * _dice("confidence", row.text)
        candidates = _candidates(p, label, bound.choices or tuple(plan.keywords), loose=not bound.choices)
        content = _logprobs(text, label, candidates[: asked.get("top_logprobs") or 0])
        logprobs = {"content": content[:limit], "refusal": None}
    message = {"role": "assistant", "content": "".join(tokens[:limit]), "refusal": None}
    reason = "length" if len(tokens) > limit else "stop"
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
    return _Choice(choice, min(limit, len(tokens)))


def _bend(body: dict[str, Any], choice: dict[str, Any], action: Action) -> None:
    message, logprobs = choice["message"], (choice["logprobs"] or {}).get("content", [])
    match action:
        case "empty_choices":
            body["choices"] = []
        case Content(text):
            message["content"] = text
        case Refusal(text):
            message |= {"content": None, "refusal": text}
        case Finish(reason):
            kept = len(message["content"] or "") // 2 if reason == "length" else 0
            message["content"] = (message["content"] or "")[:kept]
            choice["finish_reason"] = reason
        case "drop_logprobs":
            choice["logprobs"] = None
        case PartialLogprobs(k):
            for token in logprobs:
                token["top_logprobs"] = token["top_logprobs"][:k]
        case "neg_inf_logprob":
            for token in logprobs:
                for candidate in token["top_logprobs"][1:]:
                    candidate["logprob"] = -math.inf  # `-Infinity` on the wire: no JSON, but it is seen
        case "no_usage":
            del body["usage"]
        case WrongModelEcho(model):
            body["model"] = model
        case "dup_choice":
            body["choices"].append({**choice, "index": 1})


def _tokens(text: str) -> list[str]:
    """Pieces of at most six letters, a space in front belonging to the piece."""
    return re.findall(r"\s*\w{1,6}|\s*[^\w\s]|\s+", text)


@lru_cache(maxsize=1024)
def _first_token(text: str) -> str:
    return next(iter(_tokens(text)), "")


def _prompt_tokens(asked: Mapping[str, Any]) -> int:
    """An estimate: four characters a token."""
    contents = [turn.get("content") for turn in asked["messages"]]
    return sum(len(content) for content in contents if content) // 4


def _candidates(p: float, label: str, names: Sequence[str], loose: bool) -> list[tuple[str, float]]:
    """First tokens with their logarithms, the likeliest first: the label, the others, and (if `loose`) neither."""
    others = [name for name in names if name != label]
    neither = {"\n": 0.5, "**": 0.3, "The": 0.2} if loose or not others else {}
    outside = (0.1 if others else 1.0) if neither else 0.0
    shares: dict[str, float] = defaultdict(float, {_first_token(label): p})
    for name in others:
        shares[_first_token(name)] += (1 - p) * (1 - outside) / len(others)
    for token, share in neither.items():
        shares[token] += (1 - p) * outside * share
    return sorted(((token, math.log(share)) for token, share in shares.items()), key=lambda found: -found[1])


def _logprobs(text: str, label: str, candidates: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Every token of the answer; where the label begins, with its candidates, elsewhere nearly certain."""
    start = text.rfind(label)
    before = _tokens(text[: max(0, start)])
    content = [_token(token, [(token, -0.001)]) for token in [*before, *_tokens(text[max(0, start) :])]]
    if start >= 0 and candidates and len(before) < len(content):
        content[len(before)] = _token(candidates[0][0], candidates)
    return content


def _token(token: str, candidates: Sequence[tuple[str, float]]) -> dict[str, Any]:
    told = [{"token": name, "logprob": logprob, "bytes": list(name.encode())} for name, logprob in candidates]
    return {"token": token, "logprob": candidates[0][1], "bytes": list(token.encode()), "top_logprobs": told}
