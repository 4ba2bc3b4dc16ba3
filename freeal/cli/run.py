"""`freeal run`: label a pool, or go on with a run that was interrupted."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer

from freeal.cli.options import AsJson, Overrides, PriceIn, PriceOut
from freeal.errors import BudgetError, CallsSpent, ChangedError, ConfigError, FreealError, RunError
from freeal.failpoints import failpoint

if TYPE_CHECKING:
    from freeal.config import Config
    from freeal.data import Corpus
    from freeal.events import Note
    from freeal.prompts import Prompt

RUNS = Path("runs")


BEFORE_SETTINGS = ("run.lock", "rows.parquet", "prompt.md", "environment.json", "config.yaml.partial")
"""What a run directory holds, further prompts apart, before config.yaml makes it one."""

OPERATIONAL = {
    "rounds", "stop.max_calls", "stop.min_change", "stop.budget", "stop.max_failed",
    "stop.min_information", "stop.rollback",
    *(f"llm.{name}" for name in (
        "base_url", "key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "row_timeout",
        "attempts", "max_wait", "server_wait", "grace", "price_in", "price_out", "batch_tokens",
        "batch_size", "batch_poll",
        "gpu_memory", "gpus", "chunk",
    )),
}  # fmt: skip
"""Settings that change how a run goes on, and no answer: they may be others when it is resumed."""


def run(
    place: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG|RUN]", help="A configuration file, or a run directory to resume.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN; with a CONFIG, or nothing, with the newest run of it.")
    ] = False,
    fork: Annotated[
        Path | None, typer.Option("--fork", metavar="RUN", help="Begin anew with RUN's settings, prompt and replies.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run directory. Default: runs/NAME-LLM-TIME.")] = None,
    reuse: Annotated[
        list[Path] | None, typer.Option("--reuse", help="Use the replies that this run directory keeps. Repeatable.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="DOLLARS", help="Stop before more is spent (stop.budget).")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option("--max-calls", help="At most so many calls to the LLM (stop.max_calls).")
    ] = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    require: Annotated[
        str | None, typer.Option("--require", help="probabilities or constraint: a server without them is an error.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label the pool of CONFIG in rounds; write labels, student and summary to a run directory.

    Examples:

      freeal run configs/quickstart.yaml

      freeal run configs/mr.yaml --set seed=1 --set llm.model=qwen2.5-coder-1.5b

      freeal run my.yaml --budget 5.00

      freeal run --resume runs/mr-local-20261122-0347
    """
    asked = [*(overrides or ()), *shorthands(
        {"stop.budget": budget, "stop.max_calls": max_calls, "llm.price_in": price_in, "llm.price_out": price_out,
         "llm.require": require}
    )]  # fmt: skip
    if fork and (place or resume):
        raise ConfigError(f"--fork takes RUN's settings; leave out CONFIG and --resume, or use --reuse {fork} instead")
    folder = None if fork else _to_resume(place, resume, out, asked)
    if folder is None:
        folder, found = begin(place, fork, asked, out, reuse or ())
    else:
        found = go_on(folder, place, asked, reuse or ())
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _tell(found, folder)
    for warning in found["warnings"]:
        typer.echo(f"look at this before you use the labels: {warning}", err=True)
    if found["warnings"]:
        raise typer.Exit(3)


def begin(
    place: Path | None, fork: Path | None, asked: Sequence[str], out: Path | None, reuse: Sequence[Path]
) -> tuple[Path, dict[str, Any]]:
    """A new run; gives its directory, and what it came to."""
    return begin_with(_to_begin(place, fork, asked), asked, out, [*reuse, *([fork] if fork else [])])


def begin_with(
    chosen: Config, asked: Sequence[str], out: Path | None, reuse: Sequence[Path], again: str | None = None
) -> tuple[Path, dict[str, Any]]:
    """A new run with these settings, of which `asked` is what `--set` said; `again` goes on, if not `--resume`."""
    from freeal import build, rows
    from freeal.lock import RunLock

    _check_reused(reuse)
    prompt, corpus = build.inputs(chosen, *map(Path, chosen.prompts))
    folder = _new_folder(chosen, out)
    with RunLock(folder):
        borrowed = [path.resolve() for path in reuse]
        command = shlex.join(["freeal", *sys.argv[1:]])
        facts = {"command": command, "set": list(asked), "reuse": [str(path) for path in borrowed]}
        rows.write(folder, corpus)
        _write_start(folder, chosen, {**facts, "empty": list(corpus.report.empty)})
        return folder, _go(chosen, prompt, corpus, folder, borrowed, command, new=True, again=again)


def go_on(
    folder: Path, place: Path | None, asked: Sequence[str], reuse: Sequence[Path], again: str | None = None
) -> dict[str, Any]:
    """A run that goes on, if it is still the same; gives what it came to; `again` as in `begin_with`."""
    from freeal import build, rows
    from freeal.events import Note
    from freeal.lock import RunLock
    from freeal.store import ENVIRONMENT, prompt_files, read_json

    _check_reused(reuse)
    with RunLock(folder):
        about = read_json(folder / ENVIRONMENT)
        chosen, changed = _as_it_was(folder, place, about["set"], asked)
        prompt, corpus = build.inputs(chosen, *prompt_files(folder, len(chosen.prompts)))
        corpus = rows.as_before(folder, corpus)
        then = [Path(path) for path in about["reuse"]]
        there = [path for path in then if _has_ledger(path)]
        notes = [Note(f"changed since: {message}", "settings") for message in changed]
        notes += [
            Note(f"{path} is gone; what only it kept is asked anew", "ledger") for path in then if path not in there
        ]
        return _go(chosen, prompt, corpus, folder, [*there, *reuse], about["command"], notes, again=again)


def _check_reused(runs: Sequence[Path]) -> None:
    """Raises a RunError if one of the run directories whose replies are to be reused keeps none."""
    for run in runs:
        if not _has_ledger(run):
            raise RunError(f"{run}: no ledger here; --reuse and --fork take the replies of a run directory")


def _has_ledger(run: Path) -> bool:
    from freeal.ledger import FILE

    return (run / FILE).is_file()


def shorthands(given: Mapping[str, object]) -> list[str]:
    """Options that stand for a setting, as `--set` would have them."""
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _go(
    config: Config,
    prompt: Prompt,
    corpus: Corpus,
    folder: Path,
    reuse: Sequence[Path],
    command: str,
    notes: Sequence[Note] = (),
    new: bool = False,
    again: str | None = None,
) -> dict[str, Any]:
    """The run itself, with the terminal and events.jsonl listening; `again` is the command that goes on with it."""
    from freeal import build, pipeline, report
    from freeal.cli.console import listening
    from freeal.events import JsonLines, Note, RunFinished, fan_out
    from freeal.report import page

    with listening() as terminal, interruptible(again or shlex.join(["freeal", "run", "--resume", str(folder)])):
        emit = fan_out([terminal, JsonLines(folder / "events.jsonl")])
        typer.echo(f"{folder}", err=True)
        for message in corpus.report.notes():
            emit(Note(message, "data"))
        for note in notes:
            emit(note)
        try:
            job = build.job(config, prompt, corpus, folder, emit, reuse)
        except FreealError:
            if new:
                _forget_if_empty(folder)
            raise
        with job.ledger:
            if in_doubt := job.ledger.in_doubt():
                emit(
                    Note(
                        f"{in_doubt} attempts may have been paid for and brought nothing: they count as spent", "ledger"
                    )
                )
            shape = prompt.task.shape(corpus.pool.texts)
            try:
                reason = pipeline.run(corpus.pool, job.parts, job.store, shape, config.rounds)
            except BudgetError as error:
                if again is not None:  # a run of a study, which has its own limits
                    raise
                raise type(error)(f"{error}; go on with:  {with_more(folder, error)}") from error
            emit(RunFinished(reason))
            found = report.write(config, corpus, job.store, job.ledger, reason, command)
        page.write(folder)
        return found


def with_more(folder: Path, spent: BudgetError | None = None) -> str:
    """The command that goes on with the run in `folder`, with more of what is `spent`; by default of dollars."""
    option = "--max-calls" if isinstance(spent, CallsSpent) else "--budget"
    return shlex.join(["freeal", "run", "--resume", str(folder), option, "MORE"])


def _forget_if_empty(folder: Path) -> None:
    """A run that could not even begin leaves nothing behind that `--resume` would find."""
    from freeal.ledger import Ledger
    from freeal.store import FURTHER_PROMPTS

    with Ledger(folder / "ledger.sqlite") as ledger:
        asked = ledger.usage().calls + ledger.in_doubt()
    if not asked:
        left = (folder / name for name in ("config.yaml", "events.jsonl", "ledger.sqlite", *BEFORE_SETTINGS))
        for path in (*left, *folder.glob(FURTHER_PROMPTS)):
            path.unlink(missing_ok=True)
        folder.rmdir()


class interruptible:  # noqa: N801 - reads as a verb
    """Ctrl-C and SIGTERM end the run with the command that goes on with it; what was kept stays kept."""

    def __init__(self, again: str) -> None:
        self.again = again

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        signal.signal(signal.SIGTERM, self.before)
        if isinstance(error, KeyboardInterrupt):
            number = error.args[0] if error.args else signal.SIGINT
            typer.echo(f"\ninterrupted; go on with:  {self.again}", err=True)
            raise SystemExit(128 + int(number))


def _to_resume(place: Path | None, resume: bool, out: Path | None, overrides: Sequence[str] = ()) -> Path | None:
    """The run directory to go on with; None for a new run."""
    if place is not None and (place / "config.yaml").is_file():
        if out is not None:
            raise ConfigError(
                f"--out {out}: a run goes on where it is, in {place}; leave --out away, or begin another:  "
                f"freeal run --fork {place} --out {out}"
            )
        return place
    if place is not None and place.is_dir():
        raise RunError(f"{place}: no run directory (it has no config.yaml)")
    if not resume:
        return None
    if out is not None:
        if not (out / "config.yaml").is_file():
            raise RunError(f"{out}: nothing to resume there (it has no config.yaml)")
        return out
    newest = _newest(None if place is None else _name(place, overrides))
    if newest is None:
        raise RunError(f"nothing to resume: no run {'of ' + place.name + ' ' if place else ''}in {RUNS}/")
    return newest


def _name(place: Path, overrides: Sequence[str]) -> str:
    """What runs of the configuration file at `place` are called."""
    from freeal.config import assign, read_yaml

    told = read_yaml(place) if place.is_file() else {}
    for override in overrides:
        if override.partition("=")[0].strip() == "name":
            assign(told, override)
    return str(told.get("name", place.stem))


def _newest(name: str | None) -> Path | None:
    """The run directory whose settings were written last, of runs with this name; one without settings is told."""
    from freeal.store import kept_settings

    for path in sorted(RUNS.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            found = kept_settings(path.parent)
        except ConfigError as error:
            typer.echo(f"passed over: {error}", err=True)
            continue
        if name is None or found.get("name") == name:
            return path.parent
    return None


def _to_begin(place: Path | None, fork: Path | None, overrides: Sequence[str]) -> Config:
    """The configuration of a new run: of a file, or of another run."""
    from freeal import config as settings
    from freeal.store import kept_settings, prompt_files

    if fork is None:
        if place is None:
            raise ConfigError("which configuration? Try: freeal run configs/quickstart.yaml")
        return settings.load(place, overrides)
    kept = kept_settings(fork)
    count = 1 + len(kept.pop("paraphrases", ()))
    kept["prompt"] = [str(path.resolve()) for path in prompt_files(fork, count)]
    return settings.forked(kept, overrides, str(fork / "config.yaml"))


def _as_it_was(
    folder: Path, place: Path | None, at_first: Sequence[str], overrides: Sequence[str]
) -> tuple[Config, list[str]]:
    """The configuration of a run that is resumed, and what is other than before: only how it goes on may be.

    Args:
        place: the configuration file it is resumed by, if it is.
        at_first, overrides: `--set` when the run began, and now.
    """
    from freeal import config as settings
    from freeal.store import kept_settings, write_whole

    kept = kept_settings(folder)
    where = str(folder / "config.yaml")
    before = settings.parse(kept, where)
    if place is not None and place.is_file():
        now = settings.load(place, [*at_first, *overrides])
        told = differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
        told = {key: line for key, line in told.items() if key not in ("prompt", "paraphrases")}
        told |= other_prompts(folder, before, now)
        now = now.model_copy(update={"prompt": before.prompt, "paraphrases": before.paraphrases})
    else:
        now = settings.parse(settings.changed(kept, overrides), where)
        told = differences(before.model_dump(mode="json"), now.model_dump(mode="json"))
    if refused := [line for key, line in told.items() if not _operational(key)]:
        raise ChangedError(
            f"{folder}: would not be the same run; {'; '.join(refused)}. Begin another, in which replies to the same "
            f"questions cost nothing:  freeal run --fork {folder} --set …"
        )
    if told:
        write_whole(folder / "config.yaml", settings.to_yaml(now))
    return now, [*told.values(), *unknown_then(kept, now.model_dump(mode="json"))]


def _operational(key: str) -> bool:
    """Whether a setting may be another when a run is resumed; of every member of a panel as of the first LLM."""
    return re.sub(r"^panel\.\d+\.", "llm.", key) in OPERATIONAL


def other_prompts(folder: Path, before: Config, now: Config) -> dict[str, str]:
    """What is other about the prompts than in the run directory; their text counts, not where they are."""
    from freeal.store import prompt_files

    if len(now.prompts) != len(before.prompts):
        return {"prompt": f"prompt: {len(before.prompts)} → {len(now.prompts)} files"}
    kept = prompt_files(folder, len(before.prompts))
    same = [
        Path(file).is_file() and Path(file).read_bytes() == then.read_bytes()
        for file, then in zip(now.prompts, kept, strict=True)
    ]
    others = [file for file, alike in zip(now.prompts, same, strict=True) if not alike]
    if not others:
        return {}
    which = "the one" if len(kept) == 1 else "one"
    return {"prompt": "; ".join(f"prompt: {file} is not {which} the run began with" for file in others)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> dict[str, str]:
    """Dotted name of each setting that is another -> "name: before → now".

    Example:
        >>> differences({"panel": [{"chunk": 8, "seed": 0}]}, {"panel": [{"chunk": 9, "seed": 0}]})
        {'panel.0.chunk': 'panel.0.chunk: 8 → 9'}
    """
    found: dict[str, str] = {}
    for key in dict.fromkeys((*before, *now)):
        name, old, new = f"{within}{key}", before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{name}.")
        elif _sections(old) and _sections(new) and len(old) == len(new):
            found |= differences(_by_place(old), _by_place(new), f"{name}.")
        elif old != new:
            found[name] = f"{name}: {old} → {new}"
    return found


def _sections(value: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _by_place(sections: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(place): each for place, each in enumerate(sections)}


def unknown_then(kept: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """A line for each setting that the freeal which wrote `kept` did not have: it is as it is by default.

    Example:
        >>> unknown_then({"seed": 0, "stop": {}}, {"seed": 0, "stop": {"rollback": True}})
        ['stop.rollback: not known when the run began, True now']
    """
    found = []
    for key, value in now.items():
        if key not in kept:
            found.append(f"{within}{key}: not known when the run began, {value} now")
        elif isinstance(value, Mapping) and isinstance(kept[key], Mapping):
            found += unknown_then(kept[key], value, f"{within}{key}.")
    return found


def _new_folder(config: Config, out: Path | None) -> Path:
    folder = out or RUNS / f"{config.name}-{config.llm.kind}-{datetime.now():%Y%m%d-%H%M%S}"
    if folder.is_file():
        raise RunError(f"{folder}: is a file; name another place with --out")
    if folder.exists() and any(folder.iterdir()) and not _never_began(folder):
        raise RunError(f"{folder}: is not empty; resume it with --resume, or name another with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error}") from error
    return folder


def _never_began(folder: Path) -> bool:
    """Whether a process ended here before the directory was a run: nothing was asked, all is written anew."""
    from freeal.store import FURTHER_PROMPTS

    left = {path.name for path in folder.glob(FURTHER_PROMPTS)} | {*BEFORE_SETTINGS}
    there = {path.name for path in folder.iterdir()}
    return "run.lock" in there and there <= left


def _write_start(folder: Path, config: Config, facts: Mapping[str, Any]) -> None:
    """The files that make a directory a run: prompt as used, environment, and last, as it is one then, the settings."""
    from freeal.config import to_yaml
    from freeal.store import environment, prompt_files, write_whole

    try:
        for file, kept in zip(config.prompts, prompt_files(folder, len(config.prompts)), strict=True):
            shutil.copyfile(file, kept)
        about = {**facts, **environment(config.seed)}
        (folder / "environment.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
        failpoint("run.begin")
        write_whole(folder / "config.yaml", to_yaml(config))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error}") from error


def _tell(found: dict[str, Any], folder: Path) -> None:
    from freeal import report

    typer.echo(f"\n{report.headline(found)}\n")
    typer.echo("\n".join([*report.rounds_table(found), *report.rolled_back(found)]))
    for line in report.moved(found):
        typer.echo(f"\n{line}")
    for place in ("pool", "test"):
        if any(score["accuracy"] is not None for score in found[place].values()):
            typer.echo(f"\non the {place}:\n" + "\n".join(report.scores_table(found, place)))
    usage = found["usage"]
    taught = folder / "rounds" / format(found["result"]["round"], "02d") / "student"
    typer.echo(
        f"\nstopped: {found['stopped']}; {usage['calls']:,} calls, {report.clock(found['seconds'])}\n"
        f"labels:  {folder / 'labels.csv'} (and labels.parquet)\n"
        + ("" if found["student"] == "none" else f"student: {taught}\n")
        + f"summary: {folder / 'summary.md'}\n"
        f"report:  {folder / 'report.html'}\n"
        f"next:    freeal show {folder}"
    )
