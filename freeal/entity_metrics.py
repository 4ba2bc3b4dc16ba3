"""How good token labels are, entity by entity; beside `metrics` the only reader of gold. Nothing here selects anything.

A sentence is a list of tags, or None: of predictions an abstention, which misses every entity; of gold a sentence that
nobody has labelled, which does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from freeal.metrics import LabelScores, Score, Scores, accuracy, calibration_error, known
from freeal.tasks.spans import OUTSIDE, Span, Word, chunks, to_tags
from freeal.types import FloatArray, IntArray, spoken


def scores_of(classes: Sequence[str], decode: Callable[[FloatArray], IntArray]) -> Score:
    """Figures of distributions (n, s, k) over the tags `classes` against gold (n, s); macro-F1 is that over types."""

    def score(proba: FloatArray, gold: IntArray | None) -> Scores:
        coverage = float(spoken(proba).mean()) if len(proba) else 0.0
        if gold is None or not known(gold).any():
            return Scores(None, None, None, coverage)
        predicted = decode(proba)
        guesses, truths = _named(predicted, classes), _named(gold, classes)
        report, noise = entity_scores(guesses, truths), entity_noise(guesses, truths)
        assert report is not None, "there is gold"
        assert noise is not None, "there is gold"
        of_types = [each.f1 for each in report.by_type.values() if each.in_gold]
        return Scores(
            accuracy(predicted, gold), sum(of_types) / max(1, len(of_types)), _span_calibration(proba, predicted, gold),
            coverage, report.micro.precision, report.micro.recall, report.micro.f1, report.by_type, asdict(noise),
        )  # fmt: skip

    return score


def _named(labels: IntArray, classes: Sequence[str]) -> list[list[str] | None]:
    return [None if len(row) and row[0] < 0 else [classes[c] for c in row] for row in labels]


def _span_calibration(proba: FloatArray, predicted: IntArray, gold: IntArray) -> float | None:
    """That of the words predicted to be within an entity, None without any: those outside are many, and easy.

    Which words count must not hang on gold: entities that were missed, without the words rightly left outside, would
    make every tagger look too sure.
    """
    return calibration_error(proba, np.where((predicted > 0) & (gold >= 0), gold, -1))


Sentences = Sequence[Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class EntityReport:
    """`micro` over all entities, and those of each type that gold or predictions have.

    Of entities with exact borders and type, as conlleval counts.
    """

    micro: LabelScores
    by_type: dict[str, LabelScores]


def entity_scores(predicted: Sentences, gold: Sentences) -> EntityReport | None:
    """Precision, recall and F1 of entities, by seqeval. None without gold.

    Raises:
        ValueError: not as many sentences, or not as many tags in one of them, as gold has; or something is no tag.

    Example:
        >>> entity_scores([["B-PER", "O"], ["O"]], [["B-PER", "O"], ["B-LOC"]]).micro
        LabelScores(precision=1.0, recall=0.5, f1=0.6666666666666666, in_gold=2)
    """
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    pairs = list(_known(predicted, gold))
    if not pairs:
        return None
    guesses, truths = [_bio2(tags) for tags, _ in pairs], [_bio2(tags) for _, tags in pairs]
    types = sorted({tag[2:] for tags in (*guesses, *truths) for tag in tags if tag != OUTSIDE})
    if not types:
        return EntityReport(LabelScores(0.0, 0.0, 0.0, 0), {})
    micro = precision_recall_fscore_support(truths, guesses, average="micro", zero_division=0)
    columns = precision_recall_fscore_support(truths, guesses, average=None, zero_division=0)
    by_type = {type_: _scores(*row) for type_, row in zip(types, zip(*columns, strict=True), strict=True)}
    return EntityReport(_scores(*micro), by_type)


@dataclass(frozen=True, slots=True)
class EntityNoise:
    """What each predicted entity is, as against gold, and how many of gold were `missed`.

    Each predicted entity is one of: `correct`; of the `wrong_type`, with the borders of an entity of gold; within a
    `wrong_boundary`, overlapping one of its own type; `wrong_both`, overlapping others only; `spurious`, overlapping
    none. An entity of gold is `missed` where no predicted one overlaps it.
    """

    correct: int
    wrong_boundary: int
    wrong_type: int
    wrong_both: int
    spurious: int
    missed: int

    @property
    def predicted(self) -> int:
        """How many entities were predicted."""
        return sum(getattr(self, kind) for kind in KINDS)


KINDS = ("correct", "wrong_boundary", "wrong_type", "wrong_both", "spurious")
"""What a predicted entity may be; fields of `EntityNoise`."""


def entity_noise(predicted: Sentences, gold: Sentences) -> EntityNoise | None:
    """Wrong entities by kind. None without gold.

    Raises:
        ValueError: not as many sentences, or not as many tags in one of them, as gold has; or something is no tag.

    Example:
        >>> entity_noise([["B-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O"]])
        EntityNoise(correct=0, wrong_boundary=1, wrong_type=0, wrong_both=0, spurious=1, missed=0)
    """
    pairs = [(chunks(guess), chunks(truth)) for guess, truth in _known(predicted, gold)]
    if not pairs:
        return None
    kinds = Counter(_kind(entity, truth) for guess, truth in pairs for entity in guess)
    missed = sum(not _overlapping(entity, guess) for guess, truth in pairs for entity in truth)
    return EntityNoise(missed=missed, **{kind: kinds[kind] for kind in KINDS})


def _kind(entity: Span, truth: Sequence[Span]) -> str:
    there = _overlapping(entity, truth)
    if not there:
        return "spurious"
    if entity in there:
        return "correct"
    if any((other.start, other.end) == (entity.start, entity.end) for other in there):
        return "wrong_type"
    return "wrong_boundary" if any(other.type == entity.type for other in there) else "wrong_both"


def _overlapping(entity: Span, others: Sequence[Span]) -> list[Span]:
    return [other for other in others if other.start < entity.end and entity.start < other.end]


def _known(predicted: Sentences, gold: Sentences) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """The sentences that gold has, each as predicted and as it is."""
    if len(predicted) != len(gold):
        raise ValueError(f"{len(predicted)} predicted sentence(s), {len(gold)} in gold; there must be as many")
    for number, (guess, truth) in enumerate(zip(predicted, gold, strict=True), 1):
        if truth is None:
            continue
        if guess is not None and len(guess) != len(truth):
            raise ValueError(f"sentence {number}: {len(guess)} predicted tag(s), {len(truth)} in gold")
        yield [OUTSIDE] * len(truth) if guess is None else guess, truth


def _bio2(tags: Sequence[str]) -> list[str]:
    return to_tags(chunks(tags), [Word(i, i + 1) for i in range(len(tags))])


def _scores(precision: float, recall: float, f1: float, in_gold: int) -> LabelScores:
    return LabelScores(float(precision), float(recall), float(f1), int(in_gold))
