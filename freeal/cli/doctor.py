"""`freeal doctor`: is everything there that a run needs?"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freeal.cli.options import AsJson, Overrides
from freeal.errors import FreealError

if TYPE_CHECKING:
    from freeal.llm import Capabilities

PACKAGES = ("torch", "transformers", "scikit-learn", "datasets", "openai", "vllm", "numpy", "pyarrow")


def doctor(
    config: Annotated[Path | None, typer.Argument(help="Look at the LLM of this configuration too.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Versions, processor and GPU, free disk, models in the cache; with CONFIG, whether its LLM can be asked.

    A server is asked a few tokens, to find out what it understands. Keys are looked for, never shown.

    Examples:

      freeal doctor

      freeal doctor my.yaml --json
    """
    found: dict[str, Any] = {"versions": versions(), "machine": machine(), "models": cached()}
    if config is not None:
        found["llm"] = look_at_llm(config, overrides or ())
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for title, facts in found.items():
            typer.echo(title)
            for name, value in facts.items():
                typer.echo(f"  {name:16} {value}")
    if found.get("llm", {}).get("problem"):
        raise typer.Exit(found["llm"]["exit_code"])


def versions() -> dict[str, str]:
    """Of Python, freeal and the packages it works with."""
    from importlib.metadata import PackageNotFoundError, version

    from freeal import __version__

    found = {"python": sys.version.split()[0], "freeal": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Processor, GPU and disk."""
    from freeal import models

    gpus = models.gpus()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(),
        "gpu": ", ".join(gpus) or "none: models run on the processor", "free disk": f"{free:,.1f} GiB here",
    }  # fmt: skip


def cached() -> dict[str, str]:
    """Embedded models, and whether they are here already."""
    from freeal import models

    return {name: "here" if models.cached(name) else f"not here: freeal models pull {name}" for name in models.REGISTRY}


def look_at_llm(config: Path, overrides: Any) -> dict[str, Any]:
    """What can be told of the (first) LLM of a configuration without a question about any row."""
    from freeal import config as settings
    from freeal import prompts
    from freeal.events import ignore
    from freeal.parts import llms

    chosen = settings.load(config, overrides)
    found: dict[str, Any] = {"kind": chosen.llm.kind}
    if chosen.llm.kind == "openai":
        name = chosen.llm.key_env or "OPENAI_API_KEY"
        there = bool(os.environ.get(name, "").strip())
        found |= {"model": chosen.llm.model, name: "set" if there else "not set"}
    try:
        llm = llms.llm(chosen.llm, prompts.load(Path(chosen.prompt)), chosen.seed, ignore)
        found |= {"understands": llm.prepare().get("ways") or _gives(llm.capabilities)}
    except FreealError as error:
        found |= {"problem": str(error), "exit_code": error.exit_code}
    return found


def _gives(able: Capabilities) -> str:
    """What can be had of an LLM that is no server."""
    if able.probabilities:
        return "probabilities, in this process"
    return "text, in this process" if able.generation else "labels, as recorded"
