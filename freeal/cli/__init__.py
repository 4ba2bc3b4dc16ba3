"""The command line: one verb, one file. Data goes to stdout, progress and messages to stderr."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from freeal import __version__
from freeal.cli import (
    audit,
    check,
    doctor,
    explain,
    export,
    models,
    plan,
    predict,
    preview,
    repair,
    reparse,
    report,
    run,
    show,
    status,
    study,
)
from freeal.errors import FreealError

app = typer.Typer(
    name="freeal",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Labels without humans: an LLM labels your texts, a small student learns from the noisy labels and tells "
        "clean from noisy, and the clean rows teach the LLM.\n\n"
        "Examples:\n\n"
        "  freeal run configs/quickstart.yaml            label the bundled texts\n\n"
        "  freeal plan my.yaml                           validate everything; what will it cost?\n\n"
        "  freeal run my.yaml --set student.epochs=5     change a setting\n\n"
        "  freeal run --resume                           go on with the last run\n\n"
        "Exit codes: 0 done; 1 a bug; 2 a setting, prompt, data file or model cannot be used; "
        "3 done, but look at the warnings first; 4 the LLM refused; "
        "5 the LLM cannot be reached (resume later); 6 another process works in the run directory; "
        "7 a run is resumed with other settings or data; 8 the run directory cannot be used; "
        "9 the budget ended the run before it was done (resume with more); 10 the student cannot be trained; "
        "130 interrupted (resume)."
    ),
)
app.command("run")(run.run)
app.command("study")(study.study)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("preview")(preview.preview)
app.command("show")(show.show)
app.command("report")(report.report)
app.command("explain")(explain.explain)
app.command("audit")(audit.audit)
app.command("status")(status.status)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("reparse")(reparse.reparse)
app.command("repair")(repair.repair)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"freeal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; errors become one message on stderr and an exit code."""
    try:
        app()
    except FreealError as error:
        typer.echo(f"freeal: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # whatever was written or read at that moment
        mend = ": make room, and resume" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        typer.echo(f"freeal: {error}; what is kept stays{mend}", err=True)
        sys.exit(8)
