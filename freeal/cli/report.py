"""`freeal report`: the page of a run, made anew."""

from __future__ import annotations

import typer

from freeal.cli.options import RunFolder


def report(run: RunFolder) -> None:
    """Make report.html of a finished run anew, and print its path. Every run writes one when it ends.

    Example: freeal report runs/quickstart-local-20261122-034700
    """
    from freeal.report import page

    typer.echo(page.write(run))
