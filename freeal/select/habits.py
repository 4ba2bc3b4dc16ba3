"""Signs of an LLM that does not look at the texts, in what it said of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from freeal.select.calibration import information
from freeal.types import FloatArray, IntArray

LEAST = 30
"""Answers below which nothing is said of all of them."""

ALWAYS = 0.98
"""Share of the answers that counts as all of them: a chance text may differ."""

ONE = 0.95
"""The same for answers with exactly one entity: who has lost the form may stumble into a second one."""

COPIED = 0.1
"""Share of the answers with an entity taken from a demonstration that counts as a habit."""


class Named(NamedTuple):
    """What one readable answer named: entities by their `words`, or labels.

    `copied`: some of the words are an entity of a demonstration shown with the text, and stand nowhere in the text.
    """

    words: tuple[str, ...]
    copied: bool = False


def alarms(answers: Sequence[Named], labels: int | None = None) -> list[str]:
    """What is wrong with `answers` as a whole, and what to try: one clause each, none for an LLM that reads.

    Args:
        labels: how many there are to say yes or no to; None where entities are named.

    Example:
        >>> alarms([Named(())] * 40)[0].partition(":")[0]
        'the LLM names no entity in 40 of 40 answers'
    """
    n = len(answers)
    if n < LEAST:
        return []
    counts = [len(each.words) for each in answers]
    return _of_entities(answers, counts) if labels is None else _of_labels(counts, labels)


def unasked(silent: int, n: int, kind: str) -> list[str]:
    """What is wrong where `silent` of `n` texts have no candidate that the LLM could be asked about.

    Args:
        kind: of candidates, names or phrases.

    Example:
        >>> unasked(3, 3, "names")[0].partition(":")[0]
        '3 of 3 texts have no candidate and count as without entities'
    """
    if silent < max(1.0, ALWAYS * n):
        return []
    other = "names are runs of words with capitals; try reading: phrases" if kind == "names" else "look at the texts"
    return [f"{silent} of {n} texts have no candidate and count as without entities: {other}"]


def undecided(proba: FloatArray, least: float) -> list[str]:
    """What is wrong with the answers about candidates as a whole, (c, k) before their taste is taken out.

    Args:
        least: the least that they may tell of what the candidates are, see `information`.
    """
    told = information(proba)
    if told is None or told >= least:
        return []
    return [
        f"the LLM hardly tells the candidates apart ({told:.1%} of what it might tell, stop.min_information is "
        f"{least:.0%}): try words or meanings that tell the types apart, or a larger LLM"
    ]


def _of_entities(answers: Sequence[Named], counts: Sequence[int]) -> list[str]:
    n, found = len(answers), []
    if (empty := counts.count(0)) >= ALWAYS * n:
        found.append(
            f"the LLM names no entity in {empty} of {n} answers: if the texts have some, it cannot do what the prompt "
            "asks; try a larger LLM, a prompt that shows an answer, or candidates (reading: names)"
        )
    if (single := counts.count(1)) >= ONE * n:
        found.append(
            f"the LLM names exactly one entity in {single} of {n} answers: if texts have none or several, it follows "
            "the form of the prompt and not the text; try a larger LLM, or candidates (reading: names)"
        )
    words, times, speaking = _favourite(answers)
    if speaking >= LEAST and times >= ALWAYS * speaking:
        found.append(
            f"the LLM names {words[:40]!r} in {times} of the {speaking} answers that name anything: try a larger LLM, "
            "or a prompt in which these words do not stand"
        )
    if (copies := sum(each.copied for each in answers)) >= COPIED * n:
        found.append(
            f"the LLM copies entities of the demonstrations into {copies} of {n} answers, where the text does not have "
            "them: try fewer demonstrations (demos.shots), none (demos.kind: none), or a larger LLM"
        )
    return found


def _of_labels(counts: Sequence[int], labels: int) -> list[str]:
    n = len(counts)
    for said, all_alike in (("no", counts.count(0)), ("yes", counts.count(labels))):
        if all_alike >= ALWAYS * n:
            return [
                f"the LLM says {said} to every label in {all_alike} of {n} answers: try a larger LLM, one that gives "
                "probabilities, or meanings in the prompt that tell when a label applies"
            ]
    return []


def _favourite(answers: Sequence[Named]) -> tuple[str, int, int]:
    """The words in most answers, in how many they are, and how many name any."""
    said = Counter(words for each in answers for words in set(each.words))
    words, times = max(said.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return words, times, sum(bool(each.words) for each in answers)


def standing(told: Sequence[Sequence[str]], asked_in: IntArray) -> list[str]:
    """Of the alarms `told` in each round those that matter in the end: the rows' last answers are of that round.

    Args:
        asked_in: (n,) the round in which each row was last asked, -1 if never.
    """
    return [
        f"in round {number} {alarm}"
        for number, alarms_ in enumerate(told) if (asked_in == number).sum() >= LEAST
        for alarm in alarms_
    ]  # fmt: skip
