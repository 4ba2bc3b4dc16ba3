"""The figures of the page, as SVG: values in, a drawing out, the same bytes for the same values."""

from __future__ import annotations

import io
import itertools
import math
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from freeal.select.filters import Boundary
from freeal.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777", "#000000"
COLOURS = (GREY, BLUE, "#56B4E9", ORANGE, RED, GREEN, BLACK, "#CC79A7")
"""Told apart by people who do not see all colours (Okabe and Ito, 2008)."""

STYLES = {
    "zero-shot": (GREY, "o"), "first answers": (GREY, "o"), "LLM": (BLUE, "s"), "understudy": (BLUE, "s"),
    "student": (ORANGE, "^"), "final": (GREEN, "D"), "clean": (GREEN, "D"), "changed": (RED, "v"),
}  # fmt: skip
"""Part of a line's name -> its colour and the mark of its points, the first that fits: told apart in grey, too."""

WRITTEN = 12
"""Labels up to which a matrix has its numbers in it."""

ENTRY = 0.21
"""Inches that a line of a legend is high."""

STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "freeal", "text.parse_math": False, "font.family": "sans-serif",
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
    "legend.frameon": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def curve(lines: Mapping[str, Sequence[float | None]], calls: Sequence[int], what: str) -> str:
    """`lines` over the replies (`calls`) by then: a point each; None leaves a gap. A name with "test" is dashed."""
    with _drawing(6.4, 3.2) as (figure, axes):
        for name, values in lines.items():
            known = [(x, y) for x, y in zip(calls, values, strict=True) if y is not None]
            colour, marker = next(style for kind, style in STYLES.items() if kind in name)
            style = {"linestyle": "--" if "test" in name else "-", "marker": marker, "markersize": 4}
            axes.plot([x for x, _ in known], [y for _, y in known], label=name, color=colour, **style)
        axes.set_xlabel("replies of the LLM so far")
        axes.set_ylabel(what)
        axes.grid(alpha=0.25)
        figure.legend(loc="outside right upper")
        return _svg(figure)


def against_cost(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], cost: str, what: str, ceiling: float | None = None
) -> str:
    """Each method's points (cost, value, spread), joined, in the colour of its place; `ceiling` is a line across."""
    with _drawing(7.2, max(3.6, 0.4 + ENTRY * (len(curves) + 1))) as (figure, axes):
        for (name, points), colour in zip(curves.items(), itertools.cycle(COLOURS), strict=False):
            there = sorted(point for point in points if not math.isnan(point[1]))
            if there:
                x, y, spread = zip(*there, strict=True)
                axes.errorbar(x, y, yerr=spread if any(spread) else None, fmt="o-", color=colour, capsize=3, label=name)
        if ceiling is not None:
            axes.axhline(ceiling, color=BLACK, linestyle=":", label="taught by gold")
        axes.set_xlabel(cost)
        axes.set_ylabel(what)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
        figure.legend(loc="outside right upper")
        return _svg(figure)


def matrix(counts: IntArray, labels: Sequence[str], down: str, across: str) -> str:
    """Counts (k, k), the rows of which are `down`, as shades of their row's share; in figures where there are few."""
    k = len(labels)
    size = min(9.0, 2.2 + 0.45 * k if k <= WRITTEN else 2.2 + 0.1 * k)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    with _drawing(size + 0.8, size) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        small = {"fontsize": 9 if k <= WRITTEN else 4}
        axes.set_xticks(range(k), [_short(label) for label in labels], rotation=90 if k > 3 else 0, **small)
        axes.set_yticks(range(k), [_short(label) for label in labels], **small)
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        if k <= WRITTEN:
            for (row, column), count in np.ndenumerate(counts):
                dark = shares[row, column] > 0.55
                axes.text(column, row, f"{count:,}", ha="center", va="center", color="white" if dark else "black")
        return _svg(figure)


def confidence(sure: FloatArray, reliability: Sequence[Mapping[str, float]] | None) -> str:
    """How sure the labels are (n,), as a histogram; and, where gold is known, how many of the so sure are right."""
    with _drawing(6.4, 2.8, 1 if reliability is None else 2) as (figure, axes):
        left, *right = np.atleast_1d(np.array(axes, object))
        left.hist(sure, bins=np.linspace(0, 1, 21), color=BLUE)
        left.set_xlabel("probability of the final label")
        left.set_ylabel("rows")
        for each in right:
            points = reliability or ()
            each.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
            each.plot([p["confidence"] for p in points], [p["accuracy"] for p in points], color=GREEN, marker="o")
            each.set_xlim(0, 1.02)
            each.set_ylim(0, 1.02)
            each.set_xlabel("probability of the final label")
            each.set_ylabel("share right")
        return _svg(figure)


def losses(loss: FloatArray, clean: BoolArray, filtered: Boundary | None) -> str:
    """Losses (m,) in nats, those of believed rows apart from the rest; where they were `filtered`, and how."""
    with _drawing(6.4, 2.8) as (figure, axes):
        edges = np.linspace(float(loss.min()), float(loss.max()) + 1e-9, 41)
        axes.hist([loss[clean], loss[~clean]], bins=list(edges), stacked=True, color=[GREEN, ORANGE],
                  label=["believed", "not believed"])  # fmt: skip
        if filtered is not None and filtered.heaps is not None:
            at = np.linspace(edges[0], edges[-1], 200)
            scale = len(loss) * (edges[1] - edges[0])
            heaps = zip(filtered.heaps.density(at), ("low heap", "high heap"), (BLUE, RED), strict=True)
            for density, name, colour in heaps:
                axes.plot(at, density * scale, color=colour, linewidth=1.2, label=name)
            axes.set_ylim(0, 1.1 * np.histogram(loss, edges)[0].max())
        if filtered is not None:
            axes.axvline(filtered.loss, color="black", linestyle=":", label=filtered.rule)
        axes.set_xlabel("loss of the given label (nats, mean over the epochs)")
        axes.set_ylabel("rows")
        figure.legend(loc="outside right upper")
        return _svg(figure)


def balance(shares: Mapping[str, FloatArray], labels: Sequence[str]) -> str:
    """What share of the rows each label has, by whom: `shares` name -> (k,)."""
    k, many = len(labels), len(shares)
    with _drawing(6.4, min(14.0, 1.0 + k * max(0.14, 0.13 * many))) as (figure, axes):
        height = 0.8 / many
        colours = [GREY, *[BLUE] * (many - 2), GREEN] if many > 1 else [GREEN]
        for place, (name, values) in enumerate(shares.items()):
            at = np.arange(k) + (place - (many - 1) / 2) * height
            axes.barh(at, values, height, label=name, color=colours[place], alpha=0.5 + 0.5 * (place + 1) / many)
        axes.set_yticks(range(k), [_short(label) for label in labels], fontsize=9 if k <= 30 else 5)
        axes.set_ylim(k - 0.5, -0.5)
        axes.set_xlabel("share of the rows")
        figure.legend(loc="outside right upper")
        return _svg(figure)


@contextmanager
def _drawing(width: float, height: float, columns: int = 1) -> Iterator[tuple[Figure, Any]]:
    """An empty figure of so many inches, and its axes."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of the font cache that it makes once
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure, figure.subplots(1, columns)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    with warnings.catch_warnings():  # of glyphs that its font lacks: the text stays text, and a browser has others
        warnings.simplefilter("ignore")
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _short(label: str) -> str:
    """`label`, cut; a control character would make the drawing no XML."""
    shown = "".join(" " if unicodedata.category(each).startswith("C") else each for each in label)
    return shown if len(shown) <= 28 else f"{shown[:27]}…"
