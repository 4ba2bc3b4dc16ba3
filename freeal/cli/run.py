"""`freeal run`: label a pool, or go on with a run that was interrupted."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freeal.cli.options import AsJson, Overrides
from freeal.errors import ConfigError, FreealError, RunError

if TYPE_CHECKING:
    from freeal.config import Config
    from freeal.data import Corpus
    from freeal.prompts import Prompt

RUNS = Path("runs")


def run(
    place: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG|RUN]", help="A configuration file, or a run directory to resume.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN; with a CONFIG, or nothing, with the newest run of it.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The run directory. Default: runs/NAME-LLM-TIME.")] = None,
    reuse: Annotated[
        list[Path] | None, typer.Option("--reuse", help="Use the replies that this run directory keeps. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label the pool of CONFIG in rounds; write labels, student and summary to a run directory.

    Examples:

      freeal run configs/quickstart.yaml

      freeal run configs/mr.yaml --set seed=1 --set llm.model=qwen2.5-coder-1.5b

      freeal run --resume runs/mr-local-20261122-0347
    """
    from freeal import build
    from freeal import config as settings
    from freeal.data import fingerprint

    folder = _to_resume(place, resume, out)
    command = shlex.join(["freeal", *sys.argv[1:]])
    if folder is None:
        if place is None:
            raise ConfigError("which configuration? Try: freeal run configs/quickstart.yaml")
        chosen = settings.load(place, overrides or ())
        prompt, corpus = build.inputs(chosen, Path(chosen.prompt))
        folder = _new_folder(chosen, out)
        borrowed = [str(place.resolve()) for place in reuse or ()]
        _write_start(folder, chosen, {"command": command, "data": fingerprint(corpus), "reuse": borrowed})
    else:
        chosen = _as_it_was(folder, overrides or ())
        prompt, corpus = build.inputs(chosen, folder / "prompt.md")
        about = _same_data(folder, fingerprint(corpus))
        command, borrowed = about["command"], [*about["reuse"], *map(str, reuse or ())]
    found = _go(chosen, prompt, corpus, folder, [Path(place) for place in borrowed], command)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _tell(found, folder)


def _go(
    config: Config, prompt: Prompt, corpus: Corpus, folder: Path, reuse: Sequence[Path], command: str
) -> dict[str, Any]:
    """The run itself, with the terminal and events.jsonl listening."""
    from freeal import build, pipeline, report
    from freeal.cli.console import listening
    from freeal.events import JsonLines, Note, RunFinished, fan_out

    with listening() as terminal, _interruptible(folder):
        emit = fan_out([terminal, JsonLines(folder / "events.jsonl")])
        typer.echo(f"{folder}", err=True)
        for message in data_notes(corpus.report):
            emit(Note(message, "data"))
        try:
            job = build.job(config, prompt, corpus, folder, emit, reuse)
        except FreealError:
            _forget_if_empty(folder)
            raise
        reason = pipeline.run(corpus.pool, job.parts, job.store, len(prompt.labels), config.rounds)
        emit(RunFinished(reason))
        return report.write(config, corpus, job.store, job.ledger, reason, command)


def data_notes(found: Any) -> list[str]:
    """What a user should know of the data, a line each."""
    notes = []
    if found.empty:
        notes.append(f"{len(found.empty)} rows without text are skipped, first {found.empty[0]}")
    if found.duplicates:
        notes.append(f"{found.duplicates} rows repeat a text and cost no further call")
    if found.leaked:
        notes.append(f"{len(found.leaked)} texts of the pool are also in the test, first {found.leaked[0]}")
    return notes


def _forget_if_empty(folder: Path) -> None:
    """A run that could not even begin leaves nothing behind that `--resume` would find."""
    if not (folder / "rounds").exists() and not (folder / "ledger.sqlite-wal").exists():
        for name in ("config.yaml", "prompt.md", "environment.json", "events.jsonl", "ledger.sqlite"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


class _interruptible:  # noqa: N801 - reads as a verb
    """Ctrl-C and SIGTERM end the run with the command to resume it; what was kept stays kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        signal.signal(signal.SIGTERM, self.before)
        if isinstance(error, KeyboardInterrupt):
            number = error.args[0] if error.args else signal.SIGINT
            typer.echo(f"\ninterrupted; go on with:  freeal run --resume {shlex.quote(str(self.folder))}", err=True)
            raise SystemExit(128 + int(number))


def _to_resume(place: Path | None, resume: bool, out: Path | None) -> Path | None:
    """The run directory to go on with; None for a new run."""
    if place is not None and (place / "config.yaml").is_file():
        return place
    if not resume:
        return None
    if place is not None and place.is_dir():
        raise RunError(f"{place}: no run directory (it has no config.yaml)")
    if out is not None:
        if not (out / "config.yaml").is_file():
            raise RunError(f"{out}: nothing to resume there (it has no config.yaml)")
        return out
    runs = sorted(RUNS.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if place is not None:
        name = str(_yaml(place).get("name", place.stem)) if place.is_file() else place.stem
        runs = [path for path in runs if _yaml(path).get("name") == name]
    if not runs:
        raise RunError(f"nothing to resume: no run {'of ' + place.name + ' ' if place else ''}in {RUNS}/")
    return runs[-1].parent


def _as_it_was(folder: Path, overrides: Sequence[str]) -> Config:
    """The configuration of a run that is resumed; only how long it may go on can be changed."""
    from freeal import config as settings

    kept = _yaml(folder / "config.yaml")
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in ("rounds", "stop.max_calls", "stop.min_change"):
            raise ConfigError(
                f"--set {key}: a run that is resumed can change only rounds, stop.max_calls and stop.min_change; "
                f"start another run, with --reuse {folder} for its replies"
            )
        settings.assign(kept, override)
    chosen = settings.parse(kept, str(folder / "config.yaml"))
    if overrides:
        (folder / "config.yaml").write_text(settings.to_yaml(chosen), encoding="utf-8")
    return chosen


def _new_folder(config: Config, out: Path | None) -> Path:
    folder = out or RUNS / f"{config.name}-{config.llm.kind}-{datetime.now():%Y%m%d-%H%M%S}"
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: is not empty; resume it with --resume, or name another with --out")
    return folder


def _same_data(folder: Path, found: str) -> dict[str, Any]:
    """What is known of the start of the run in `folder`, if its data are those `found` now."""
    about: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    if about["data"] != found:
        raise RunError(f"{folder}: the data are not those it began with; start another run, with --reuse {folder}")
    return about


def _write_start(folder: Path, config: Config, facts: Mapping[str, Any]) -> None:
    """The files that make a directory a run: configuration, prompt as used, environment."""
    from freeal.config import to_yaml
    from freeal.store import environment

    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(config.prompt, folder / "prompt.md")
        about = {**facts, **environment(config.seed)}
        (folder / "environment.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
        (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error}") from error


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


def _tell(found: dict[str, Any], folder: Path) -> None:
    from freeal import report

    typer.echo(f"\n{report.headline(found)}\n")
    typer.echo("\n".join(report.rounds_table(found)))
    for place in ("pool", "test"):
        if any(score["accuracy"] is not None for score in found[place].values()):
            typer.echo(f"\non the {place}:\n" + "\n".join(report.scores_table(found[place])))
    usage = found["usage"]
    typer.echo(
        f"\nstopped: {found['stopped']}; {usage['calls']:,} calls, {report.clock(found['seconds'])}\n"
        f"labels:  {folder / 'labels.csv'} (and labels.parquet)\n"
        f"student: {folder / 'rounds' / format(found['rounds'][-1]['round'], '02d') / 'student'}\n"
        f"summary: {folder / 'summary.md'}\n"
        f"next:    freeal show {folder}"
    )
