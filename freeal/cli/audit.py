"""`freeal audit`: how good the labels are, from a few rows that a person labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freeal.cli.options import AsJson, RunFolder

if TYPE_CHECKING:
    from freeal.report.audit import Audit

WANTED = 0.95
"""How right labels should surely be, if nobody says."""


def audit(
    run: RunFolder,
    total: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=1,
            help="Rows to draw for a person, those drawn before counted; five at least of each fifth of the pool by "
            "how sure the labels are. First: 100.",
        ),
    ] = None,
    wanted: Annotated[
        float, typer.Option("--at-least", min=0.0, max=1.0, help="How right the labels should surely be.")
    ] = WANTED,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first draw.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw rows for a person to label (audit.csv in RUN), and read the answers back: accuracy with a 95 % interval.

    For tasks of one label a text. The first call writes the sheet; fill in its column `label`, and call again. More may
    be drawn later.

    Rows are drawn from the sure and the unsure alike. The labels' probabilities stand in for the rows that you do not
    label, corrected by those that you do, and count for as much as these show them to tell: wrong ones bias nothing. In
    simulated audits the interval held in 93 of 100 or more, wherever the errors were (mean 97). It is for a number of
    rows fixed beforehand: who looks again and again until it pleases will be wrong more often than the interval says.

    Examples:

      freeal audit runs/mr-local-20261122-034700 --n 100

      freeal audit runs/mr-local-20261122-034700 --at-least 0.9
    """
    from dataclasses import asdict

    from freeal.certificate import LEAST
    from freeal.report import audit as audits
    from freeal.report import history

    found = history.read(run)
    drawn = audits.sample(found, total, seed)
    judged = audits.judge(found, drawn, wanted)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "sheet": str(run / audits.SHEET), **asdict(judged)}, indent=2))
        return
    sheet = run / audits.SHEET
    if total is not None and judged.drawn > total:
        typer.echo(
            f"{judged.drawn:,} rows are drawn, not {total:,}: {LEAST} at least of each of {len(drawn.drawn)} parts of "
            "the pool by how sure the labels are, and what was drawn before stays"
        )
    if not judged.answered:
        typer.echo(f"{judged.drawn:,} rows to label: {sheet}\nfill in its column {audits.ANSWER!r}", nl=False)
        typer.echo(f" with one of: {', '.join(found.labels)}; then again:  freeal audit {run}")
        return
    typer.echo("\n".join(lines(judged, run)))


def lines(judged: Audit, run: Path) -> list[str]:
    """What the answers say of the labels of `run`, as people read it."""
    told = [f"{judged.answered:,} of {judged.drawn:,} drawn rows are labelled by a person"]
    if judged.answered < judged.drawn:
        told.append("the others are left out, as if chance had chosen them: do not skip those that are hard")
    told += ["", f"{'on the pool':<14}right   {_percent(next(iter(judged.certificates.values())).confidence)} interval"]
    for name, each in judged.certificates.items():
        told.append(f"{name:<14}{each.estimate:.3f}   {each.low:.3f} to {each.high:.3f}")
    told.append("")
    wanted, final = _percent(judged.wanted), judged.certificates["final labels"]
    if judged.needed == 0:
        told.append(f"the final labels are surely right to {wanted} or more")
    elif judged.needed is not None:
        told += _to_label(judged, judged.needed, run)
    elif final.high < judged.wanted:
        told.append(f"the final labels are surely not right to {wanted}")
    else:
        told.append(f"nothing says that the final labels are right to {wanted}")
    return told


def _to_label(judged: Audit, needed: int, run: Path) -> list[str]:
    """How to come to the labels that are still `needed`: the rows that are drawn already come first."""
    blank = judged.drawn - judged.answered
    told = f"label {needed:,} rows more to be sure of {_percent(judged.wanted)}, if they turn out like these"
    if needed <= blank:
        return [f"{told}: {blank:,} drawn rows are still blank"]
    first = f"{blank:,} drawn rows are still blank, for the others" if blank else "draw them"
    least = "" if judged.wanted == WANTED else f" --at-least {judged.wanted:g}"
    return [f"{told}: {first}:  freeal audit {run} --n {judged.answered + needed}{least}"]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
