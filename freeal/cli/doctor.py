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
    from collections.abc import Sequence

    from freeal.config import LLMConfig
    from freeal.llm import Capabilities
    from freeal.prompts import Prompt

PATIENCE = 5.0
"""Seconds in which a server that is down may come back."""

PACKAGES = ("torch", "transformers", "scikit-learn", "datasets", "openai", "vllm", "numpy", "pyarrow")


def doctor(
    config: Annotated[Path | None, typer.Argument(help="Look at the LLM of this configuration too.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Versions, processor and GPU, free disk, models in the cache; with CONFIG, whether its LLMs can be asked.

    A server is asked a few tokens, to find out what it understands; one that is down is waited for a few seconds. Keys
    are looked for, never shown.

    Examples:

      freeal doctor

      freeal doctor my.yaml --json
    """
    found: dict[str, Any] = {"versions": versions(), "machine": machine(), "models": cached()}
    if config is not None:
        looked = look_at_llms(config, overrides or ())
        found |= {f"llm.{place}" if place else "llm": facts for place, facts in enumerate(looked)}
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for title, facts in found.items():
            typer.echo(title)
            for name, value in facts.items():
                if name != "ways":
                    typer.echo(f"  {name:16} {value}")
    problems = [facts["exit_code"] for facts in found.values() if "problem" in facts]
    if problems:
        raise typer.Exit(problems[0])


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


def look_at_llms(config: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """What can be told of each LLM of a configuration without a question about any row."""
    from freeal import config as settings
    from freeal import prompts

    chosen = settings.load(config, overrides)
    prompt = prompts.load(Path(chosen.prompt))
    return [_look_at(llm, prompt, chosen.seed) for llm in (chosen.llm, *chosen.panel)]


def _look_at(wanted: LLMConfig, prompt: Prompt, seed: int) -> dict[str, Any]:
    from freeal.config import OpenAIConfig
    from freeal.events import ignore
    from freeal.llm import openai_api
    from freeal.llm.ways import Ways
    from freeal.parts import llms

    found: dict[str, Any] = {"kind": wanted.kind}
    if isinstance(wanted, OpenAIConfig):
        found["model"] = wanted.model
        if (name := openai_api.key_variable(wanted.key_env, openai_api.urls_of(wanted))) is not None:
            found[name] = "set" if os.environ.get(name, "").strip() else "not set"
        wanted = wanted.model_copy(update={"server_wait": min(PATIENCE, wanted.server_wait)})
        typer.echo(
            f"asking {wanted.model} a few tokens; waiting {wanted.server_wait:g} s for it if it is down", err=True
        )
    try:
        llm = llms.llm(wanted, prompt, seed, ignore)
        ways = llm.prepare().get("ways")
        found["understands"] = Ways(**ways).told() if ways else _gives(llm.capabilities)
        found |= {"ways": ways} if ways else {}
    except FreealError as error:
        found |= {"problem": str(error), "exit_code": error.exit_code}
    return found


def _gives(able: Capabilities) -> str:
    """What can be had of an LLM that is no server."""
    if able.probabilities:
        return "probabilities, in this process"
    return "text, in this process" if able.generation else "labels, as recorded"
