"""`freeal audit`: how good the labels are, from a few rows that a person labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from freeal.cli.options import AsJson, RunFolder

if TYPE_CHECKING:
    from freeal.report.audit import Audit


def audit(
    run: RunFolder,
    total: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Rows to draw for a person, those drawn before counted. First: 100."),
    ] = None,
    wanted: Annotated[
        float, typer.Option("--at-least", min=0.0, max=1.0, help="How right the labels should surely be.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first draw.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw rows for a person to label (audit.csv in RUN), and read the answers back: accuracy with a 95 % interval.

    The first call writes the sheet; fill in its column `label`, and call again. Rows are drawn more often where the
    labels are unsure; the interval holds however wrong their probabilities are, for a number of rows fixed beforehand:
    who looks again and again until it pleases will be wrong more often than the interval says. More may be drawn later.

    Examples:

      freeal audit runs/mr-local-20261122-034700 --n 100

      freeal audit runs/mr-local-20261122-034700 --at-least 0.9
    """
    from dataclasses import asdict

    from freeal.report import audit as audits
    from freeal.report import history

    found = history.read(run)
    drawn = audits.sample(found, total, seed)
    judged = audits.judge(found, drawn, wanted)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "sheet": str(run / audits.SHEET), **asdict(judged)}, indent=2))
        return
    sheet = run / audits.SHEET
    if not judged.answered:
        typer.echo(f"{judged.drawn:,} rows to label: {sheet}\nfill in its column {audits.ANSWER!r}", nl=False)
        typer.echo(f" with one of: {', '.join(found.labels)}; then again:  freeal audit {run}")
        return
    typer.echo("\n".join(lines(judged)))


def lines(judged: Audit) -> list[str]:
    """What the answers say, as people read it."""
    told = [f"{judged.answered:,} of {judged.drawn:,} drawn rows are labelled by a person"]
    if judged.answered < judged.drawn:
        told.append("the others are left out, as if chance had chosen them: do not skip those that are hard")
    told += ["", f"{'on the pool':<14}right   surely ({_percent(next(iter(judged.certificates.values())).confidence)})"]
    for name, each in judged.certificates.items():
        told.append(f"{name:<14}{each.estimate:.3f}   {each.low:.3f} to {each.high:.3f}")
    told.append("")
    wanted, final = _percent(judged.wanted), judged.certificates["final labels"]
    if judged.needed == 0:
        told.append(f"the final labels are surely right to {wanted} or more")
    elif judged.needed is not None:
        told.append(f"label {judged.needed:,} rows more to be sure of {wanted}, if they turn out like these (--n)")
    elif final.high < judged.wanted:
        told.append(f"the final labels are surely not right to {wanted}")
    else:
        told.append(f"nothing says that the final labels are right to {wanted}")
    return told


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
