"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="A configuration file (YAML).")]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as student.epochs=5. May be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PriceIn = Annotated[
    float | None, typer.Option("--price-in", metavar="DOLLARS", help="For a million tokens in (llm.price_in).")
]
PriceOut = Annotated[
    float | None, typer.Option("--price-out", metavar="DOLLARS", help="For a million tokens out (llm.price_out).")
]
