"""From the candidates for each token of a reply to a log-probability for each choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

TOO_LITTLE = 0.5
"""Probability of all labels together below which it says nothing of a reply that begins otherwise ("Label: …")."""

LEAST_LEFT = 1e-9
"""Probability that choices which were not seen have together, at least."""

AMBIGUOUS = 0.01
"""Share of the probability that may lie on tokens which begin several choices, before nothing is said of any."""


AROUND = "\"'`*_“‘«„"
"""What models write around a label, and readers of replies take off again."""

_SPACES = {"\u0120": " ", "\u2581": " ", "\u010a": "\n"}
"""How tokenizers write a space and a line's end: some servers tell tokens as they stand in the vocabulary."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token of a reply: the one that was taken, and the candidates with their log-probabilities."""

    taken: str
    candidates: Sequence[tuple[str, float]]


def choice_logprobs(steps: Sequence[Step], choices: Sequence[str]) -> tuple[float, ...] | None:
    """One logarithm a choice: that the reply begins like this choice and like no other.

    At each token a candidate counts for the one choice that goes on with it, whatever its case. Where one of a
    choice's candidates of one spelling ends the choice or a word of it ("positive"), it alone counts: it is how the
    model writes the choice, while the shorter ones ("po") begin other words ("powerful"), which a constraint to the
    choices would turn into this one. Else they add up ("dam" and "damage" of "damaged"). Where choices share a
    beginning, the tokens that were taken are followed until they part; so are those before the choice that add nothing
    to it (white space, quotes, emphasis). A choice that was not seen gets a bound: one less than the least probable
    candidate.

    Returns:
        None if no candidate begins a choice, or if too much lies on beginnings that several choices share and
        that were not followed, so that nothing can be said.

    Example:
        >>> first = Step("pos", [("pos", -0.1), (" Neg", -2.5), ("The", -6.0)])
        >>> choice_logprobs([first], ["negative", "positive", "mixed"])
        (-2.5, -0.1, -7.0)
        >>> held = Step("po", [("po", -0.3), ("negative", -2.0), ("ne", -3.0), ("positive", -4.0)])
        >>> choice_logprobs([held], ["negative", "positive"])
        (-2.0, -4.0)
        >>> steps = [Step("very", [("very", -0.1)]), Step(" good", [(" good", -0.2), (" bad", -1.7)])]
        >>> [round(p, 2) for p in choice_logprobs(steps, ["very good", "very bad"])]
        [-0.3, -1.8]
        >>> bold = [Step("**", [("**", 0.0)]), Step("good", [("good", -0.3), ("bad", -1.4)])]
        >>> choice_logprobs(bold, ["good", "bad"])
        (-0.3, -1.4)
    """
    folded = [_bare(choice) or choice.casefold() for choice in choices]
    if set(_SPACES).isdisjoint("".join(choices).upper()):  # two of them are letters of Maltese
        steps = list(map(_spaced, steps))
    found, ambiguous = [-math.inf] * len(choices), -math.inf
    alive, read, so_far = list(range(len(choices))), "", 0.0
    bounds: list[float] = []
    for step in steps:
        followed: list[int] = []
        taken_logprob = -math.inf
        candidates = [(token, logprob) for token, logprob in step.candidates if not math.isnan(logprob)]
        owned = [_owners(read, token, alive, folded) for token, _ in candidates]
        whole = _whole(read, [token for token, _ in candidates], owned, folded)
        for (token, logprob), owning in zip(candidates, owned, strict=True):
            bounds += [so_far + logprob] if logprob > -math.inf else []
            length = len(_joined(read, token))
            owners = [i for i in owning if whole.get((i, _spelling(token)), length) == length]
            if len(owners) == 1:
                found[owners[0]] = _add(found[owners[0]], so_far + logprob)
            elif token == step.taken and _adds_nothing(read, token):
                followed, taken_logprob = alive, logprob
            elif owners and token == step.taken:
                followed, taken_logprob = owners, logprob
            elif owners:
                ambiguous = _add(ambiguous, so_far + logprob)
        if not followed:
            break
        alive, read, so_far = followed, _joined(read, step.taken), so_far + taken_logprob
    else:
        # the reply ended while several choices went on alike
        ambiguous = _add(ambiguous, so_far) if len(alive) < len(choices) or read else ambiguous
    told = max(found, default=-math.inf)
    if told == -math.inf or ambiguous - told > math.log(AMBIGUOUS):
        return None
    first = next((step.taken for step in steps if not _adds_nothing("", step.taken)), "")
    begins = bool(_owners("", first, range(len(choices)), folded))
    if not begins and math.log(TOO_LITTLE) > reduce(_add, found):
        return None
    unseen = sum(logprob == -math.inf for logprob in found)
    left = max(1.0 - math.exp(reduce(_add, found)), LEAST_LEFT)  # together no more than what was not seen
    bound = min(min(bounds) - 1.0, math.log(left / max(unseen, 1)))
    return tuple(bound if logprob == -math.inf else logprob for logprob in found)


def _owners(read: str, token: str, alive: Sequence[int], choices: Sequence[str]) -> list[int]:
    """Those of `alive` that go on with `token`; where none does, the one that is whole without it."""
    text = _joined(read, token)
    if not text:
        return []
    going_on = [i for i in alive if choices[i].startswith(text)] if text != read else []
    return going_on or [i for i in alive if choices[i] == read]


def _whole(
    read: str, tokens: Sequence[str], owned: Sequence[Sequence[int]], choices: Sequence[str]
) -> dict[tuple[int, tuple[bool, bool]], int]:
    """(choice, spelling) -> characters read with the longest of its tokens of that spelling that ends a word of it."""
    found: dict[tuple[int, tuple[bool, bool]], int] = {}
    for token, owners in zip(tokens, owned, strict=True):
        length = len(_joined(read, token))
        for i in owners:
            if not choices[i][length : length + 1].isalnum():
                of = i, _spelling(token)
                found[of] = max(found.get(of, 0), length)
    return found


def _spelling(token: str) -> tuple[bool, bool]:
    """Behind a space, with a capital: a model has other tokens for each spelling of a word."""
    return token[:1].isspace(), token.lstrip().lstrip(AROUND)[:1].isupper()


def _joined(read: str, token: str) -> str:
    return read + token.casefold() if read else _bare(token)


def _adds_nothing(read: str, token: str) -> bool:
    return not read and not _bare(token)


def _bare(text: str) -> str:
    """`text`, folded, without what may stand before a label."""
    return text.lstrip().lstrip(AROUND).casefold()


def _spaced(step: Step) -> Step:
    """The step with its spaces as they are written, not as a tokenizer names them."""
    plain = str.maketrans(_SPACES)
    return Step(step.taken.translate(plain), [(token.translate(plain), each) for token, each in step.candidates])


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
