"""One run directory: rounds whole or not at all, readable without freeal, resumed from files alone."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freeal.config import Config, parse, read_yaml
from freeal.errors import RunError
from freeal.failpoints import failpoint
from freeal.select.reasons import DEFAULT, Decision, reasons, sources
from freeal.student import Student
from freeal.tasks import Task
from freeal.types import (
    PROBABILITY,
    Annotations,
    Demonstration,
    FloatArray,
    Guidelines,
    LoopState,
    Measured,
    Pool,
    surest,
)

if TYPE_CHECKING:
    import pyarrow

CONFIG, PROMPT, ENVIRONMENT, EVENTS = "config.yaml", "prompt.md", "environment.json", "events.jsonl"
LABELS, STUDENT = "labels.parquet", "student"
FURTHER_PROMPTS = "prompt-[0-9]*.md"
"""Names of the prompts after the first, where a run has several."""

RESULT = "result.json"
"""Which round is the run's result, and why, since it ended."""

SUMMARY, TOLD = "summary.json", "summary.md"
"""What the run came to, for machines and for people, since it ended."""

TEST = "test.parquet"
"""In each round, if there is a test: what was said of its rows."""

GUIDELINES = "guidelines.json"
"""In each round before which the meanings of the labels might be rewritten: what became of it."""

SHOWN = "shown.json"
"""In each round: which rows of the pool any of its questions was shown as demonstrations, and with what labels."""

VECTORS = "vectors.npy"
"""In each round, where the next one retrieves demonstrations by the student's vectors: those of the pool, (n, d)."""

REPORT = "report.json"
"""In each round: its figures."""

SUMS = "sha256.json"
"""In each round: sha256 of every file of it."""


def prompt_files(folder: Path, count: int) -> list[Path]:
    """Where a run directory keeps its `count` prompts.

    Example:
        >>> [path.name for path in prompt_files(Path("run"), 3)]
        ['prompt.md', 'prompt-2.md', 'prompt-3.md']
    """
    return [folder / PROMPT, *(folder / f"prompt-{number}.md" for number in range(2, count + 1))]


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` came to its end, and no further round has begun since."""
    path = folder / SUMMARY
    return path.is_file() and path.stat().st_size > 0  # an earlier freeal, if killed, may have left an empty one


def kept_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in `folder` as they were, every default written out.

    Raises:
        RunError: no run directory.
        ConfigError: its config.yaml cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise RunError(f"{folder}: no run directory (it has no {CONFIG})")
    return read_yaml(folder / CONFIG)


def kept_config(folder: Path) -> Config:
    """The configuration a run was made with; what an earlier freeal did not know of has its default.

    Raises:
        RunError: no run directory.
        ConfigError: its config.yaml cannot be read, or used.
    """
    return parse(kept_settings(folder), str(folder / CONFIG))


@dataclass(frozen=True, slots=True)
class Record:
    """A round being written: a folder that takes its name when it is whole."""

    folder: Path
    classes: Sequence[str]
    ids: Sequence[str]

    def save(self, state: LoopState, student: Student, measured: Measured) -> Mapping[str, Any]:
        """Write the state after the round, the student, and what was measured; gives what report.json holds.

        Raises:
            RunError: the disk is full, or gone.
        """
        with _writing(self.folder):
            return self._save(state, student, measured)

    def _save(self, state: LoopState, student: Student, measured: Measured) -> Mapping[str, Any]:
        said = state.annotations
        columns: dict[str, Any] = {"id": list(self.ids), "asked_in": said.asked_in, "problem": list(said.problems)}
        columns |= _per_class("first", said.first, self.classes) | _per_class("llm", said.proba, self.classes)
        _write_table(self.folder / "annotations.parquet", columns)
        columns = {"id": list(self.ids), "p_clean": state.p_clean, "clean": state.clean, "loss": state.loss}
        columns |= _per_class("student", state.student, self.classes)
        columns |= _per_class("posterior", state.posterior, self.classes)
        _write_table(self.folder / "posterior.parquet", columns)
        failpoint("artefact.mid_write")
        if measured.test:
            columns = {"id": list(measured.test_ids)}
            for who, proba in measured.test.items():
                columns |= _per_class(who, proba, self.classes)
            _write_table(self.folder / TEST, columns)
        demos = [json.dumps(asdict(demo), ensure_ascii=False) for demo in state.demos]
        (self.folder / "demonstrations.jsonl").write_text("".join(d + "\n" for d in demos), encoding="utf-8")
        (self.folder / SHOWN).write_text(json.dumps(measured.shown, ensure_ascii=False) + "\n", encoding="utf-8")
        if state.guidelines:
            said_anew = json.dumps(asdict(state.guidelines), indent=2, ensure_ascii=False)
            (self.folder / GUIDELINES).write_text(said_anew + "\n", encoding="utf-8")
        if state.vectors is not None:
            np.save(self.folder / VECTORS, state.vectors, allow_pickle=False)
        student.save(self.folder / STUDENT)
        failpoint("student.mid_save")
        report = {"round": state.next_round - 1, "changed": state.changed, **measured.figures}
        (self.folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
        return report


@dataclass(frozen=True)
class RunStore:
    """The directory of one run: `rounds/00`, `rounds/01`, … and the files beside them."""

    folder: Path
    task: Task | None = None
    """None will do to look at the folders alone."""
    ids: Sequence[str] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.task.classes if self.task else ()

    @property
    def rounds(self) -> Path:
        return self.folder / "rounds"

    def finished(self) -> list[Path]:
        """Folders of the rounds that are whole, first to last."""
        return sorted(p for p in self.rounds.glob("[0-9]*") if p.is_dir() and not p.suffix)

    def result(self) -> Path:
        """Folder of the round whose labels and student are those of the run: as chosen when it ended, else the last.

        Raises:
            RunError: no round is whole yet.
        """
        done = self.finished()
        if not done:
            raise RunError(f"{self.folder}: no round is whole yet; go on with:  freeal run --resume {self.folder}")
        kept = self.folder / RESULT
        try:
            number = json.loads(kept.read_text(encoding="utf-8"))["round"] if kept.is_file() else -1
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{kept}: cannot be read ({error}); have it made anew:  freeal run --resume {self.folder}"
            ) from error
        return next((folder for folder in done if int(folder.name) == number), done[-1])

    def choose(self, number: int, why: str | None) -> None:
        """Keep which round is the result and, if it is not the last one, why."""
        write_whole(self.folder / RESULT, json.dumps({"round": number, "why": why}, indent=2) + "\n")

    @contextmanager
    def round(self, number: int) -> Iterator[Record]:
        """A record to save round `number` in; it is on disk whole when the block ends, or not at all.

        The run is no longer finished when it begins.
        """
        folder, partial = self.rounds / f"{number:02d}", self.rounds / f"{number:02d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with _writing(partial):
            (self.folder / SUMMARY).unlink(missing_ok=True)
            partial.mkdir(parents=True)
        yield Record(partial, self.classes, self.ids)
        with _writing(partial):
            sums = {str(path.relative_to(partial)): _sum(path) for path in sorted(partial.rglob("*")) if path.is_file()}
            (partial / SUMS).write_text(json.dumps(sums, indent=2), encoding="utf-8")
            _sync(partial)
            partial.rename(folder)
            _sync_folder(self.rounds)

    def resume(self) -> LoopState | None:
        """The state after the last whole round; None before the first.

        Raises:
            RunError: files of that round were damaged, or its rows are not those of now.
        """
        done = self.finished()
        if done and (wrong := damaged_files(done[-1])):
            raise RunError(f"{done[-1] / wrong[0]}: is not as it was written; mend it:  freeal repair {self.folder}")
        return self.load(done[-1]) if done else None

    def load(self, folder: Path) -> LoopState:
        """The state that a round's folder holds."""
        annotations = read_table(folder / "annotations.parquet")
        posterior = read_table(folder / "posterior.parquet")
        if annotations["id"] != list(self.ids):
            raise RunError(f"{folder}: its rows are not those of the data now; were the data or data.sample changed?")
        demos = []
        with (folder / "demonstrations.jsonl").open(encoding="utf-8") as lines:  # str.splitlines cuts at U+2028 too
            for line in lines:
                demos.append(Demonstration(**json.loads(line)))
        report = self.report(folder)
        said = Annotations(
            _distribution("first", annotations, self.classes),
            _distribution("llm", annotations, self.classes),
            np.array(annotations["asked_in"], np.int16),
            np.array([*annotations["problem"], None], object)[:-1],
        )
        return LoopState(
            int(report["round"]) + 1,
            said,
            _distribution("posterior", posterior, self.classes),
            _distribution("student", posterior, self.classes),
            np.array(posterior["p_clean"], PROBABILITY),
            np.array(posterior["clean"], bool),
            np.array(posterior.get("loss", [np.nan] * len(self.ids)), PROBABILITY),  # an earlier freeal kept none
            tuple(demos),
            float(report["changed"]),
            _guidelines(folder / GUIDELINES),
            np.load(folder / VECTORS, allow_pickle=False) if (folder / VECTORS).is_file() else None,
        )

    def report(self, folder: Path) -> dict[str, Any]:
        """The figures of a round.

        Raises:
            RunError: they cannot be read, or are not as they were written.
        """
        if damaged_files(folder, REPORT):
            raise RunError(f"{folder / REPORT}: is not as it was written; mend it:  freeal repair {self.folder}")
        return read_json(folder / REPORT)

    def shown(self, folder: Path) -> dict[int, str] | None:
        """Row of the pool -> its label as a round's questions were shown it; None in a round of an earlier freeal."""
        if not (folder / SHOWN).is_file():
            return None
        kept = json.loads((folder / SHOWN).read_text(encoding="utf-8"))
        return {int(row): label for row, label in kept.items()}

    def on_test(self, folder: Path) -> tuple[list[str], dict[str, FloatArray]]:
        """Ids of the test's rows, and who said what of them, (t, k) each; none where a round keeps nothing of it."""
        if not (folder / TEST).is_file():
            return [], {}
        table = read_table(folder / TEST)
        first = f": {self.classes[0]}"
        who = [name.removesuffix(first) for name in table if name.endswith(first)] or [n for n in table if n != "id"]
        return table["id"], {name: _distribution(name, table, self.classes) for name in who}

    def write_labels(self, pool: Pool, state: LoopState, speaker: str = "LLM", decision: Decision = DEFAULT) -> Path:
        """The product: labels.parquet and labels.csv, a row an example; gives the path of the first.

        `speaker`, `decision`: see `reasons`.
        """
        assert self.task is not None
        best = self.task.best(state.posterior)
        sure = surest(state.posterior, best)
        cells = [self.task.cells(text, *said) for text, *said in zip(pool.texts, best, state.posterior, strict=True)]
        columns = {
            "id": list(self.ids),
            "text": pool.texts,
            **{name: [row[name] for row in cells] for name in (cells[0] if cells else ())},
            "probability": sure.astype(PROBABILITY),
            "source": sources(state, self.task.best),
            "round": state.annotations.asked_in,
            "believed": state.clean,
            "why": reasons(state, self.task.best, speaker, decision),
        }
        path = self.folder / LABELS
        _write_table(path, columns)
        _write_csv(self.folder / "labels.csv", columns)
        return path


def damaged_files(folder: Path, within: str = "") -> list[str]:
    """Files of a round (those whose names begin with `within`) that are missing, or not as they were written."""
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []  # a round of an earlier freeal
    except (OSError, ValueError):
        return [SUMS]
    names = [name for name in sums if name.startswith(within)]
    return [name for name in names if not (folder / name).is_file() or _sum(folder / name) != sums[name]]


def _guidelines(path: Path) -> Guidelines | None:
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Guidelines(**{**kept, "notes": tuple(kept["notes"])})


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment(seed: int) -> dict[str, Any]:
    """Where and with what a run was made: versions, machine, seed, time. No names of users or hosts."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("freeal", "torch", "transformers", "scikit-learn", "numpy", "openai", "vllm"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"), "seed": seed, "python": sys.version.split()[0],
        "system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count(), "versions": versions,
    }  # fmt: skip


def spreadsheet_cell(value: object) -> object:
    """A cell no spreadsheet takes for a formula: text that looks like one gets an apostrophe before it."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value


def _per_class(name: str, proba: FloatArray, classes: Sequence[str]) -> dict[str, Any]:
    """A column a class; of several decisions a row one column of lists, decision by decision, class by class."""
    if proba.ndim == 3:
        return {name: list(proba.reshape(len(proba), -1).astype(PROBABILITY))}
    return {f"{name}: {label}": proba[:, c].astype(PROBABILITY) for c, label in enumerate(classes)}


def _distribution(name: str, table: Mapping[str, Any], classes: Sequence[str]) -> FloatArray:
    if name in table:
        flat = np.array(table[name], PROBABILITY)
        return flat.reshape(len(flat), -1, len(classes)) if len(flat) else flat.reshape(0, 0, len(classes))
    return np.stack([np.array(table[f"{name}: {label}"], PROBABILITY) for label in classes], axis=1)


def _write_table(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    number, text = pa.int64(), pa.string()
    entity = pa.struct(
        [("start", number), ("end", number), ("label", text), ("text", text), ("probability", pa.float64())]
    )
    of_lists = {"spans": pa.list_(entity), "labels": pa.list_(text)}  # which are known, though all may be empty
    table: pyarrow.Table = pa.table({name: pa.array(each, of_lists.get(name)) for name, each in columns.items()})
    partial = path.with_suffix(".tmp")
    parquet.write_table(table, partial)
    partial.replace(path)


def _write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([spreadsheet_cell(value) for value in row])
    partial.replace(path)


def read_table(path: Path) -> dict[str, Any]:
    """Columns of a Parquet file of a run directory.

    Raises:
        RunError: it cannot be read.
    """
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise RunError(f"{path}: cannot be read ({error}); {_mend(path)}") from error
    return {name: table[name].to_pylist() for name in table.column_names}


def read_json(path: Path) -> dict[str, Any]:
    """What a run directory keeps in a file of JSON.

    Raises:
        RunError: it is gone, or cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); {_mend(path)}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: holds no object of JSON; {_mend(path)}")
    return found


def _mend(path: Path) -> str:
    """What to do about an unreadable file of a run: one of a round, of its beginning, or made from its rounds."""
    run = next((folder for folder in path.parents if (folder / CONFIG).is_file()), path.parent)
    if path.parent != run:
        return f"mend it:  freeal repair {run}"
    if path.name == ENVIRONMENT:
        return f"what the run has paid for serves a new one:  freeal run CONFIG --reuse {run}"
    return f"have it made anew:  freeal run --resume {run}"


def write_whole(path: Path, text: str) -> None:
    """`path` is on the disk with this text, or is as it was before.

    Raises:
        RunError: the disk is full, or gone.
    """
    partial = path.with_name(f"{path.name}.partial")
    with _writing(path):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """A disk that is full or gone is a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{place}: could not be written ({error}); make room and resume") from error


def _sync(folder: Path) -> None:
    """Every file of `folder` and of the folders in it is on the disk, before the folder takes its name."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            _sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
