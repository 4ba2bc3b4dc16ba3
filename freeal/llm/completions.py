"""What a chat completion says: pure, so that kept replies can be read again without a server, or its client."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from freeal.llm import Reply, Request
from freeal.llm.logprobs import Step, choice_logprobs
from freeal.prompts import aloud
from freeal.tasks.classification import Classification

FEWEST = 2
"""Candidates a token that make probabilities: one alone says nothing of the other labels."""


def no_completion(raw: str) -> str | None:
    """What is wrong with the body of a success, if it is no chat completion."""
    try:
        found = json.loads(raw)
    except ValueError:
        return f"expected a chat completion, found no JSON but {raw[:80]!r}: no chat completion"
    if not isinstance(found, dict) or not isinstance(found.get("choices"), list) or not found["choices"]:
        return f"expected a chat completion, found {raw[:80]!r}: no chat completion"
    return None


def read_completion(raw: str, request: Request, tokens_in: int) -> Reply:
    """What a chat completion says; `tokens_in` is the estimate for servers that tell no usage.

    Any field may be missing or of another kind, whatever the protocol says: the reply then has a problem, or no
    probabilities.
    """
    try:
        return _read(json.loads(raw), request, tokens_in)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return Reply(None, None, tokens_in, 0, f"unreadable reply: {type(error).__name__}: {str(error)[:80]}")


def _read(completion: Mapping[str, Any], request: Request, tokens_in: int) -> Reply:
    usage = completion.get("usage") or {}
    choices = completion["choices"]
    texts = [_content(choice) for choice in choices]
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    reply = Reply(
        texts[0],
        tokens_in=int(usage.get("prompt_tokens") or tokens_in),
        tokens_out=_tokens_out(usage) or sum(len(text or "") // 4 for text in texts),
        tokens_cached=None if cached is None else int(cached),
    )
    choice, text = choices[0], texts[0]
    message = choice.get("message") or {}
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        why = _whole(str(message.get("refusal") or "content filter"))
        return replace(reply, problem=f"refused: {why[:200]}")
    partial = request.schema is not None or (request.choices and not _begins_one(text or "", request.choices))
    if choice.get("finish_reason") == "length" and partial:
        return replace(reply, problem=f"cut off: {(text or '')[:80]!r}")
    if not any((t or "").strip() for t in texts):
        return replace(reply, problem="empty reply")
    if not request.choices:
        return reply
    votes = _votes(texts, request.choices) if len(texts) > 1 else None
    return replace(reply, logprobs=votes or choice_logprobs(list(_steps(choice)), request.choices))


def _tokens_out(usage: Mapping[str, Any]) -> int:
    """Tokens that are paid for as written: some servers (xAI, Gemini) count thoughts in the total alone."""
    written, total = int(usage.get("completion_tokens") or 0), int(usage.get("total_tokens") or 0)
    return max(written, total - int(usage.get("prompt_tokens") or total))


def thoughts(completion: Mapping[str, Any]) -> bool:
    """Whether the model thought before it spoke, as far as a completion tells: or spoke not at all for want of room."""
    try:
        usage, choice = completion.get("usage") or {}, completion["choices"][0]
        counted = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        silent = choice.get("finish_reason") == "length" and not (_content(choice) or "").strip()
        return bool(counted) or silent or bool((choice.get("message") or {}).get("reasoning_content"))
    except (AttributeError, IndexError, KeyError, TypeError):
        return False


def unreadable(completion: Mapping[str, Any], request: Request) -> str | None:
    """Why rows whose replies look like this one could not be read; None if they can, whatever they say."""
    problem = read_completion(json.dumps(completion), request, 0).problem or ""
    return problem if problem.startswith("unreadable reply") else None


def candidates_told(completion: Mapping[str, Any]) -> int:
    """Candidates a token that a readable completion tells; 0 if they are too few to make probabilities."""
    first = next(_steps(completion["choices"][0]), None)
    return len(first.candidates) if first and len(first.candidates) >= FEWEST else 0


def _content(choice: Mapping[str, Any]) -> str | None:
    """The text of a reply, which some servers send in parts."""
    text = (choice.get("message") or {}).get("content")
    if isinstance(text, list):
        text = "".join(part.get("text") or "" for part in text if part.get("type", "text") == "text")
    return _whole(text) if isinstance(text, str) else None


def _whole(text: str) -> str:
    """`text` without halves of characters, as where a reply was cut in an emoji: no file and no database takes them."""
    return text.encode("utf-8", "replace").decode()


def _steps(choice: Mapping[str, Any]) -> Iterator[Step]:
    for token in (choice.get("logprobs") or {}).get("content") or []:
        candidates = [
            (c["token"], c["logprob"]) for c in token.get("top_logprobs") or [] if c.get("logprob") is not None
        ]
        yield Step(token.get("token", ""), candidates)


def _votes(texts: Sequence[str | None], choices: Sequence[str]) -> tuple[float, ...] | None:
    """Log of the share of votes of each choice, None if fewer than half of them named one.

    A vote is read as a reply is that stands alone. To each half a vote is added, but to all together not more than
    one: choices may be many words of few labels.
    """
    read = [_reader(tuple(choices)).read(aloud(text)).label for text in texts]
    named = [label for label in read if label is not None]
    if 2 * len(named) < len(texts):
        return None
    more = min(0.5, 1.0 / len(choices))
    total = len(named) + more * len(choices)
    return tuple(math.log((named.count(place) + more) / total) for place in range(len(choices)))


@lru_cache
def _reader(choices: tuple[str, ...]) -> Classification:
    return Classification(dict.fromkeys(choices, ""))


def label_said(completion: Mapping[str, Any], request: Request) -> str:
    """What stands for the label in a completion of whatever shape."""
    return _json_label(aloud(read_completion(json.dumps(completion), request, 0).text) or "").strip()


def _json_label(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found.get("label", text)) if isinstance(found, dict) else text


def _begins_one(text: str, choices: Sequence[str]) -> bool:
    return any(text.strip().casefold().startswith(choice.casefold()) for choice in choices)
