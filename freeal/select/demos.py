"""Which rows teach the LLM, and which of them each question is shown with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from freeal.types import BoolArray, FloatArray, IntArray, portion

BLOCK = 4096
"""Rows compared with others at a time: memory stays bounded, whatever the pool."""

SAMPLE = 4000
"""Rows that stand for the pool where its clusters are found, and where neighbours are looked for."""

ROWS_A_SET = 25
"""Fewer rows are not worth a set of demonstrations of their own, which has to be read for them."""

NEIGHBOURS = 10
"""Rows that are asked whether a row has the label of those around it."""


def quotas(total: int, k: int) -> list[int]:
    """`total` shared out among `k` labels as evenly as it goes, at least one each while there are any.

    Example:
        >>> quotas(10, 6), quotas(3, 5)
        ([2, 2, 2, 2, 1, 1], [1, 1, 1, 0, 0])
    """
    return [total // k + (c < total % k) for c in range(k)]


def clustered(
    labels: IntArray,
    confidence: FloatArray,
    embeddings: FloatArray,
    eligible: BoolArray,
    total: int,
    top: float,
    k: int,
    seed: int,
) -> IntArray:
    """Rows to demonstrate with: for each label the most confident eligible ones, spread by k-means.

    Per label the `top` share of its eligible rows by confidence (never fewer than its quota, as far as there
    are any) is cut into as many clusters as its quota, and the row nearest each centre is kept (FreeAL's code;
    its paper has k-medoids). Fewer rows than clusters are all kept; a label without eligible rows gets none.

    Args:
        labels: (n,) class of each row; confidence (n,); embeddings (n, d); eligible (n,).
        total: demonstrations wanted over all k labels.

    Returns:
        (t,) rows of the pool, label by label, most confident first.
    """
    chosen: list[IntArray] = [np.zeros(0, np.int64)]
    for c, quota in enumerate(quotas(total, k)):
        rows = np.flatnonzero(eligible & (labels == c))
        sure = rows[np.argsort(-confidence[rows], kind="stable")]
        sure = sure[: max(quota, portion(top, len(sure)))]
        kept = _spread(sure, embeddings, quota, seed + c)
        chosen.append(kept[np.argsort(-confidence[kept], kind="stable")])
    return np.concatenate(chosen)


def with_every_label(eligible: BoolArray, labels: IntArray, confidence: FloatArray, k: int, least: int) -> BoolArray:
    """(n,) the eligible rows and, for a label that has none, its `least` most confident rows.

    A label that is never demonstrated is hardly ever given: doubtful demonstrations are better than none.

    Example:
        >>> with_every_label(np.array([True, False, False]), np.array([0, 1, 1]), np.array([0.9, 0.5, 0.6]), 2, 1)
        array([ True, False,  True])
    """
    widened = eligible.copy()
    for c in range(k):
        rows = np.flatnonzero(labels == c)
        if not eligible[rows].any():
            widened[rows[np.argsort(-confidence[rows], kind="stable")[:least]]] = True
    return widened


def _spread(rows: IntArray, embeddings: FloatArray, count: int, seed: int) -> IntArray:
    """`count` of `rows`, each the nearest to the centre of its cluster."""
    from sklearn.cluster import KMeans

    points = embeddings[rows].astype(np.float64)
    distinct = len(np.unique(points, axis=0)) if len(rows) else 0
    if len(rows) <= count or count == 0:
        return rows[:count]
    clusters = KMeans(min(count, distinct), n_init=3, random_state=seed).fit(points)
    kept = []
    for centre in range(clusters.n_clusters):
        members = np.flatnonzero(clusters.labels_ == centre)
        distance = ((points[members] - clusters.cluster_centers_[centre]) ** 2).sum(axis=1)
        kept.append(rows[members[distance.argmin()]])
    return np.array(kept)


def shared(labels: IntArray, shots: int, k: int) -> IntArray:
    """One set for every question: `shots` places in the demonstration pool, labels in turn.

    Args:
        labels: (t,) class of each demonstration, best first within a label.

    Returns:
        (at most shots,) places in the pool of demonstrations; every label that has one is present while
        `shots` allows.
    """
    piles = [list(np.flatnonzero(labels == c)) for c in range(k)]
    chosen: list[int] = []
    while len(chosen) < shots and any(piles):
        chosen += [int(pile.pop(0)) for pile in piles if pile]
    return np.array(chosen[:shots], np.int64)


def clusters(vectors: FloatArray, sets: int, seed: int) -> tuple[IntArray, FloatArray]:
    """The pool in at most `sets` clusters by k-means: (n,) that of each row, and the centres (c, d), of length one.

    They are found on a sample; fewer than ROWS_A_SET rows a cluster make fewer clusters.

    Args:
        vectors: (n, d), of length one.
    """
    from sklearn.cluster import KMeans

    count = max(1, min(sets, len(vectors) // ROWS_A_SET))
    sample = vectors[_spaced(len(vectors))].astype(np.float64)
    found = KMeans(min(count, len(np.unique(sample, axis=0))), n_init=3, random_state=seed).fit(sample)
    centres = found.cluster_centers_
    length = np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return found.predict(vectors.astype(np.float64)), (centres / length).astype(vectors.dtype)


def of_length_one(vectors: FloatArray) -> FloatArray:
    """(n, d) float32 in the same directions, so that products are cosines; a vector of zeros stays one.

    Example:
        >>> of_length_one(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)
    return unit


def neighbours_agree(vectors: FloatArray, labels: IntArray) -> BoolArray:
    """(n,) rows whose NEIGHBOURS nearest neighbours, weighted by their cosine, mostly have the row's own label.

    Neighbours are looked for in a sample of the rows that have a label (>= 0), never the row itself: the work grows
    with the pool, not with its square.

    Args:
        vectors: (n, d), of length one.
        labels: (n,), -1 for none; such a row agrees with nobody.
    """
    agree = np.zeros(len(labels), bool)
    labelled = np.flatnonzero(labels >= 0)
    others = labelled[_spaced(len(labelled))]
    if len(others) < 2:
        return agree
    votes_of = np.eye(int(labels.max()) + 1)[labels[others]]
    for start in range(0, len(labelled), BLOCK):
        rows = labelled[start : start + BLOCK]
        likeness = np.where(rows[:, None] == others[None, :], -np.inf, vectors[rows] @ vectors[others].T)
        near = np.argsort(-likeness, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(others) - 1)]
        weights = np.maximum(np.take_along_axis(likeness, near, axis=1), 0.0)
        votes = (weights[:, :, None] * votes_of[near]).sum(axis=1)
        agree[rows] = votes[np.arange(len(rows)), labels[rows]] > votes.sum(axis=1) / 2
    return agree


def _spaced(n: int) -> IntArray:
    """At most SAMPLE of `n` places, evenly spaced."""
    return np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64)


def in_turn(places: Sequence[int], labels: IntArray) -> list[int]:
    """The same places, labels in turn: first the first of each label, then the second ones.

    Example:
        >>> in_turn([4, 1, 0, 2], np.array([0, 0, 1, 1, 0]))
        [4, 2, 1, 0]
    """
    piles: dict[int, list[int]] = {}
    for place in places:
        piles.setdefault(int(labels[place]), []).append(place)
    rounds = max((len(pile) for pile in piles.values()), default=0)
    return [pile[i] for i in range(rounds) for pile in piles.values() if i < len(pile)]


def nearest(
    asked: FloatArray,
    demos: FloatArray,
    labels: IntArray,
    forbidden: Sequence[Sequence[int]],
    shots: int,
    k: int,
    balanced: bool = True,
    cap: int | None = None,
) -> list[list[int]]:
    """For each question the demonstrations most like it, the most similar first.

    Args:
        asked: (a, d) and demos: (t, d), unit vectors, so that their products are cosines.
        labels: (t,) class of each demonstration.
        forbidden: for each question the demonstrations it may not see: itself, and its own text.
        shots: how many to show. Balanced: shots // k of each label (at least one while shots allow), the
            rest by similarity; fewer shots than labels: the nearest of each label, of the nearest labels.
        cap: how many questions may show the same demonstration, as long as others are left; the first ones served.

    Returns:
        places in the pool of demonstrations for each question; fewer where there are too few.
    """
    shown: list[list[int]] = []
    used = np.zeros(len(demos), np.int64)
    for start in range(0, len(asked), BLOCK):
        similarity = asked[start : start + BLOCK] @ demos.T
        for i, row in enumerate(similarity):
            barred = set(forbidden[start + i])
            order = [int(j) for j in np.argsort(-row, kind="stable") if int(j) not in barred]
            fresh = order if cap is None else _under(cap, order, used, shots)
            chosen = _balanced(fresh, labels, shots, k) if balanced else fresh[:shots]
            used[chosen] += 1
            shown.append(chosen)
    return shown


def _under(cap: int, order: Sequence[int], used: IntArray, shots: int) -> list[int]:
    """Of `order` those used less than `cap` times; fewer than `shots`, they are joined by those used least."""
    fresh = {j for j in order if used[j] < cap}
    rest = sorted(
        (place for place, j in enumerate(order) if j not in fresh), key=lambda place: (used[order[place]], place)
    )
    fresh |= {order[place] for place in rest[: max(0, shots - len(fresh))]}
    return [j for j in order if j in fresh]


def by_frequency(shown: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same demonstrations for each question, those first that most questions share.

    Prompts then begin alike as far as they can, so that what they share is read once, here or in a server's prefix
    cache.

    Example:
        >>> by_frequency([[2, 7], [7, 1], [7]])
        [[7, 2], [7, 1], [7]]
    """
    counts = Counter(place for places in shown for place in places)
    return [sorted(places, key=lambda place: (-counts[place], place)) for places in shown]


def _balanced(order: Sequence[int], labels: IntArray, shots: int, k: int) -> list[int]:
    quota = max(1, shots // k)
    counts = np.zeros(k, int)
    chosen: list[int] = []
    for place in order:
        if counts[labels[place]] < quota and len(chosen) < shots:
            counts[labels[place]] += 1
            chosen.append(place)
    rest = [place for place in order if place not in set(chosen)] if quota * k < shots else []
    chosen += rest[: shots - len(chosen)]
    return sorted(chosen, key=order.index)
