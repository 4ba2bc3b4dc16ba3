"""`freeal study`: what the pipeline is worth, against its baselines and its ceiling."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freeal.cli.options import AsJson, ConfigFile, Overrides
from freeal.errors import BudgetError, ChangedError, ConfigError, RunError, Unfit, Unreadable

if TYPE_CHECKING:
    from freeal.study import Method

RUNS = Path("runs")


def study(
    config: ConfigFile,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds: 0, 1, …")] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Only this method, or part of the ablation. May be repeated."),
    ] = None,
    budgets: Annotated[
        str | None, typer.Option("--budgets", metavar="B,…", help="Also with at most B calls for a row of the pool.")
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also the default with each part switched off in turn.")
    ] = False,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="The study's folder. Default: runs/study-NAME.")] = None,
    reuse: Annotated[
        list[Path] | None, typer.Option("--reuse", help="Use the replies that this run directory keeps. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run every method on CONFIG's data, seed by seed: accuracy on pool and test, calls, tokens, and how sure it is.

    Methods: zero-shot, calibrated, few-shot (demonstrations of its own making), distilled (a student of the calibrated
    labels), freeal-paper, default, and gold (the same student on true labels). A reply that one method has is asked
    for by no other. With budgets, methods are compared with the default at the same budget. Interrupted, the same
    command goes on; until then study.json and study.html have what is finished, as they have what other commands have
    made in the same folder with the same seeds and settings.

    Examples:

      freeal study configs/mr.yaml --seeds 3

      freeal study configs/trec.yaml --seeds 2 --method zero-shot --method default --set data.sample=500

      freeal study configs/trec.yaml --method default --method zero-shot --budgets 0.25,0.5,1

      freeal study configs/trec.yaml --method default --ablate

      freeal study configs/trec.yaml --method default --method "default, no scout"
    """
    from freeal import study as studies
    from freeal.cli.run import interruptible
    from freeal.config import load
    from freeal.report import study as pages

    numbers, command = list(range(seeds)), shlex.join(["freeal", *sys.argv[1:]])
    folder = out or RUNS / f"study-{config.stem}"
    if folder.is_file():
        raise RunError(f"{folder}: is a file; name another place with --out")
    load(config, overrides or ())
    parts, left_out = _parts(config, folder, overrides or ()) if ablate else ([], {})
    size = studies.pool_size(config, overrides or ()) if budgets else 0
    named = studies.methods(only or ())
    chosen = studies.at_budgets([*named, *(part for part in parts if part not in named)], shares(budgets), size)
    runs = [(seed, method) for seed in numbers for method in chosen]
    for seed, method in runs:
        _check(config, folder, method, seed, overrides or ())
    earlier = _earlier(config, folder, chosen, numbers, overrides or ())
    studies.write_gold(config, folder, numbers, overrides or ())
    study = _Study(config, folder, chosen, numbers, overrides or (), reuse or (), command, left_out, earlier)
    with interruptible(command):
        study.run()
        found = study.write()
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    typer.echo("\n".join(pages.table(found)))
    for warning, of in pages.warnings(found):
        typer.echo(f"\nlook at this before you use the labels: {warning} ({of})")
    typer.echo(f"\n{_about(found, seeds)}\nstudy:   {folder / pages.JSON}\npage:    {folder / pages.PAGE}")


def _parts(config: Path, folder: Path, overrides: Sequence[str]) -> tuple[list[Method], dict[str, str]]:
    """The default without each of its parts, and those parts that the configuration does not have, with the reason."""
    from freeal import study as studies

    every = studies.ablated()
    reasons = {method.name: studies.without_part(config, folder, method, overrides) for method in every}
    left_out = {name: why for name, why in reasons.items() if why}
    for name, why in left_out.items():
        typer.echo(f"{name} is left out: {why}", err=True)
    return [method for method in every if method.name not in left_out], left_out


def _earlier(
    config: Path, folder: Path, chosen: Sequence[Method], seeds: Sequence[int], overrides: Sequence[str]
) -> list[Method]:
    """The methods beside those `chosen` that the folder has with these seeds and settings; of others it is told."""
    from freeal import study as studies

    names = {method.name for method in chosen}
    size = cache(partial(studies.pool_size, config, overrides))
    others = [method for method in studies.methods_in(folder, size) if method.name not in names]
    there = [method for method in others if all(studies.is_finished(folder, method, seed) for seed in seeds)]
    same = [method for method in there if _is_as_now(config, folder, method, seeds, overrides)]
    for why, left in (
        (f"not with all of {len(seeds)} seeds (--method NAME adds them)", [m for m in others if m not in there]),
        ("with other settings", [m for m in there if m not in same]),
    ):
        if left:
            told = "; ".join(method.name for method in left)
            typer.echo(f"not in this table, as {folder} has them {why}: {told}", err=True)
    return same


def _is_as_now(config: Path, folder: Path, method: Method, seeds: Sequence[int], overrides: Sequence[str]) -> bool:
    """Whether the runs of a method have the settings that they would have now."""
    try:
        return not any(_other_settings(config, folder, method, seed, overrides) for seed in seeds)
    except ConfigError:  # the configuration has no such part now
        return False


def shares(told: str | None) -> list[float]:
    """The numbers of `--budgets`.

    Raises:
        ConfigError: one of them is none, or not above zero.
    """
    found = []
    for word in (told or "").split(","):
        try:
            share = float(word) if word.strip() else None
        except ValueError:
            share = -1.0
        if share is not None and not 0 < share < 1000:
            raise ConfigError(f"--budgets {told}: {word.strip()!r} is no number of calls for a row; try 0.25,0.5,1")
        found += [] if share is None else [share]
    return sorted(set(found))


def _check(config: Path, folder: Path, method: Method, seed: int, overrides: Sequence[str]) -> None:
    """Nothing, if the configuration has what this method sets, and its run is not there yet or has these settings.

    Raises:
        ConfigError: the configuration has no such part.
        ChangedError: the run has other settings.
    """
    try:
        told = _other_settings(config, folder, method, seed, overrides)
    except ConfigError as error:
        raise ConfigError(f"{method.name}: {error}") from error
    if told:
        raise ChangedError(f"{folder}: was made with other settings: {'; '.join(told)}; name another with --out")


def _other_settings(config: Path, folder: Path, method: Method, seed: int, overrides: Sequence[str]) -> list[str]:
    """What is other in the run of a method and a seed than it would be now; nothing of a run that is not there yet.

    Raises:
        ConfigError: the configuration has not what this method sets.
    """
    from freeal import study as studies
    from freeal.cli.run import differences, other_prompts
    from freeal.store import kept_config

    now = studies.settings(config, folder, method, seed, overrides)
    run = studies.run_of(folder, method, seed)
    if not (run / "config.yaml").is_file():
        return []
    then = kept_config(run)
    told = differences(then.model_dump(mode="json"), now.model_dump(mode="json"))
    return list((told or other_prompts(run, then, now)).values())


@dataclass(frozen=True)
class _Study:
    """The runs of a study, one after the other; what cannot be run is `left_out`, with the reason.

    Methods that are whole by an `earlier` command are told beside the `chosen` ones.
    """

    config: Path
    folder: Path
    chosen: Sequence[Method]
    seeds: Sequence[int]
    overrides: Sequence[str]
    reuse: Sequence[Path]
    command: str
    left_out: dict[str, str]
    earlier: Sequence[Method]

    def run(self) -> None:
        """Every run that is not there already; before each, what is finished is written.

        Raises:
            Unfit: no method can be run.
        """
        from freeal.study import reason

        kept = list(self.reuse)
        for seed in self.seeds:
            for method in self.chosen:
                if method.name in self.left_out:
                    continue
                typer.echo(f"{method.name}, seed {seed}", err=True)
                try:
                    self._one(method, seed, kept)
                except (Unfit, BudgetError, Unreadable) as error:
                    if isinstance(error, BudgetError) and method.budget is None:
                        raise
                    self.left_out[method.name] = reason(error)
                    typer.echo(f"{method.name} is left out: {reason(error)}", err=True)
                    continue
                if not method.on_gold:
                    kept.append(self._run_of(method, seed))
        if not self._able:
            raise Unfit(f"no method can be run: {next(iter(self.left_out.values()))}")

    def write(self) -> dict[str, Any]:
        """study.json and study.html, of all that is finished."""
        from freeal import study as studies
        from freeal.report import study as pages

        found = studies.collect(self.folder, self._able, self.seeds, self.command, self.left_out, self.earlier)
        pages.write(self.folder, found)
        return found

    @property
    def _able(self) -> list[Method]:
        return [method for method in self.chosen if method.name not in self.left_out]

    def _run_of(self, method: Method, seed: int) -> Path:
        from freeal import study as studies

        return studies.run_of(self.folder, method, seed)

    def _one(self, method: Method, seed: int, reuse: Sequence[Path]) -> None:
        """One run of the study, unless it is there already; one that was interrupted goes on."""
        from freeal import study as studies
        from freeal.cli import run

        if studies.is_finished(self.folder, method, seed):
            return
        there = (studies.is_finished(self.folder, each, number) for each in self._able for number in self.seeds)
        if self.earlier or any(there):
            self.write()
        where = self._run_of(method, seed)
        if (where / "config.yaml").is_file():
            run.go_on(where, None, (), (), self.command)
            return
        chosen = studies.settings(self.config, self.folder, method, seed, self.overrides)
        asked = [*self.overrides, *method.settings, f"seed={seed}"]
        run.begin_with(chosen, asked, where, reuse, self.command)


def _about(found: dict[str, Any], seeds: int) -> str:
    parts = (
        "; what a part is worth: points, and calibration error, by which the default is worse without it"
        if any(method["part"] for method in found["methods"].values())
        else ""
    )
    spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ", one seed"
    rows = " of rows right throughout" if found["measure"] == "F1" else ""
    return (
        f"{found['measure']} on the pool (transductive) and the test (inductive){spread}; the last columns: "
        f"points{rows} more than {found['reference']} with the same budget, with 95 % intervals of a paired bootstrap; "
        "calls and tokens are those of labelling the pool, as if each method were alone, seconds as they were with "
        f"shared replies{parts}"
    )
