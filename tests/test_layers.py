"""Who may import whom: arrows point down only."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "freeal"

LAYERS = (
    ("__main__",),
    ("cli", "testing"),
    ("study",),
    ("build",),
    ("parts",),
    ("pipeline", "report", "repair"),
    ("scorekeeper",),
    ("guidelines",),
    ("panel", "verification", "candidates", "understudy", "taste"),
    ("annotator", "demonstrations", "lexicon", "store", "rows", "lock"),
    ("llm.*", "student.*"),
    ("entity_metrics",),
    ("prompts", "data", "metrics", "models", "select", "ledger", "money", "certificate"),
    ("formats",),
    ("tables",),
    ("tasks", "config", "llm", "student"),
    ("events", "types"),
    ("errors", "failpoints", "processor"),
)
"""Highest first. `llm` and `student` are the protocols in `__init__`, `llm.*` and `student.*` those who follow them."""

TOGETHER = {
    "cli",
    "annotator",
    "demonstrations",
    "store",
    "pipeline",
    "report",
    "select",
    "tasks",
    "failpoints",
    "parts",
}
"""Within these layers one module may use another, as long as there is no cycle."""

HEAVY = {
    "torch": {"llm/hidden.py", "llm/int8.py", "llm/local.py", "llm/states.py", "models.py", "processor.py", "student/"},
    "transformers": {"llm/chats.py", "llm/local.py", "llm/states.py", "models.py", "student/"},
    "openai": {"llm/openai_api.py"},
    "vllm": {"llm/vllm_engine.py"},
    "datasets": {"tables.py", "formats.py"},
    "spacy": {"formats.py"},
    "seqeval": {"entity_metrics.py"},
    "sqlite3": {"ledger.py", "repair.py"},
}
"""Each heavy dependency lives in the files that need it, and nowhere else."""

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """Full names of all that a file imports, inside functions and for types alike."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


def uses(name):
    """Modules of freeal that `name` imports."""
    return {found for found in imports(MODULES[name]) if found in MODULES and found not in ("freeal", name)}


def layer(name):
    """Index into LAYERS: 0 is the highest."""
    _, top, *inner = name.split(".")
    key = f"{top}.*" if inner and top in ("llm", "student") else top
    return next(i for i, names in enumerate(LAYERS) if key in names)


BELOW = sorted(set(MODULES) - {"freeal"})


@pytest.mark.parametrize("name", BELOW)
def test_a_module_imports_only_what_lies_below_it(name):
    for found in uses(name):
        level = layer(name) == layer(found)
        together = level and (name.split(".")[1] == found.split(".")[1] or name.split(".")[1] in TOGETHER)
        assert layer(name) < layer(found) or together, f"{name} imports {found}"


def test_there_are_no_cycles():
    def visit(name, above):
        assert name not in above, " → ".join([*above, name])
        if name not in seen:
            for found in uses(name):
                visit(found, [*above, name])
            seen.add(name)

    seen = set()
    for name in BELOW:
        visit(name, [])


@pytest.mark.parametrize("dependency", HEAVY)
def test_a_heavy_dependency_lives_in_the_files_that_need_it(dependency):
    users = {
        path.relative_to(PACKAGE).as_posix() for path in FILES if dependency in {n.split(".")[0] for n in imports(path)}
    }
    strangers = {user for user in users if not user.startswith(tuple(HEAVY[dependency]))}
    assert strangers == set()


def test_rehearsals_stay_out_of_the_product():
    for name in BELOW:
        if not name.startswith("freeal.testing"):
            assert not {found for found in uses(name) if found.startswith("freeal.testing")}, name


def test_the_decisions_are_pure():
    forbidden = {"time", "random", "os", "pathlib", "sqlite3", "logging", "io", "json"}
    for path in (PACKAGE / "select").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & forbidden, path.name


def test_the_loop_sees_protocols_and_types_only():
    outside = {name.split(".")[0] for name in imports(MODULES["freeal.pipeline"])} - {"freeal"}
    assert outside <= {"__future__", "collections", "dataclasses", "typing", "numpy"}
    assert not {name for name in uses("freeal.pipeline") if name.startswith(("freeal.llm.", "freeal.student."))}


def test_the_loop_has_no_word_about_kinds_of_tasks():
    words = set(re.findall(r"[a-z]+", MODULES["freeal.pipeline"].read_text(encoding="utf-8").lower()))
    kinds = {"classification", "multilabel", "sets", "tokens", "token", "tags", "tag", "spans", "span", "entities",
             "entity", "candidates", "candidate", "panel", "kind", "task"}  # fmt: skip
    assert words & kinds == set()
    assert not {name for name in uses("freeal.pipeline") if name.startswith("freeal.tasks")}


def test_only_metrics_and_its_callers_speak_of_gold():
    readers = {"build", "parts", "config", "data", "metrics", "entity_metrics", "scorekeeper", "report", "study", "cli"}
    for name in BELOW:
        nodes = ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        names = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in nodes
            if isinstance(node, (ast.Name, ast.Attribute))
        }
        assert name.split(".")[1] in readers or not any("gold" in found for found in names), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nobody_prints_or_throws_dice_behind_the_scenes(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        assert call not in ("print", "np.random.seed", "random.seed"), f"{path.name}:{node.lineno}"
        assert not isinstance(node, ast.ExceptHandler) or node.type is not None, f"{path.name}:{node.lineno}"
