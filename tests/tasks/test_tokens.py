"""Entities as the LLM writes them: in lines, or in JSON that a schema holds."""

import json

import numpy as np
import pytest

from freeal.prompts import load
from freeal.tasks.spans import Span
from freeal.tasks.tokens import Tokens
from freeal.types import Demonstration, Example

LINES = Tokens({"PER": "", "LOC": ""})
HELD = LINES.in_json()
TEXT = 'Ann and "Bob" met Ann in Paris . Paris laughed .'
SPANS = [Span(0, 3, "PER"), Span(9, 12, "PER"), Span(18, 21, "PER"), Span(25, 30, "LOC"), Span(33, 38, "PER")]
PROMPT = """---
task: tokens
labels: [PER, LOC]
---
## user
{{ text }}

## assistant
{{ entities }}
"""


@pytest.mark.parametrize("spans", [SPANS, SPANS[:3], []])
def test_what_is_written_as_json_is_read_as_it_was(spans):
    best = HELD.tagged(TEXT, spans)
    said = HELD.heard(HELD.write(TEXT, best), TEXT)
    assert said.problem is None
    np.testing.assert_array_equal(said.proba.argmax(-1), best)


def test_json_names_each_occurrence_in_the_order_of_the_text():
    written = json.loads(HELD.write(TEXT, HELD.tagged(TEXT, SPANS)))
    assert [(each["text"], each["type"]) for each in written["entities"]] == [
        ("Ann", "PER"), ("Bob", "PER"), ("Ann", "PER"), ("Paris", "LOC"), ("Paris", "PER"),
    ]  # fmt: skip


def test_what_is_written_keeps_to_the_schema():
    schema = HELD.form.schema
    item = schema["properties"]["entities"]["items"]
    (entity,) = json.loads(HELD.pretended(1, TEXT))["entities"]
    assert list(entity) == item["required"]
    assert entity["type"] in item["properties"]["type"]["enum"]


def test_lines_have_no_form_of_their_own():
    assert LINES.form is None
    assert LINES.pretended(0, TEXT) == "PER: Ann"
    assert HELD.in_json() == HELD


def test_a_prompt_in_json_says_so_and_shows_demonstrations_bare(tmp_path):
    (tmp_path / "names.md").write_text(PROMPT, encoding="utf-8")
    prompt = load(tmp_path / "names.md")
    shown = [Demonstration("Ann slept", HELD.pretended(0, "Ann slept"))]
    chat = prompt.in_json().render(Example("1", TEXT), shown)
    assert [message.role for message in chat] == ["system", "user", "assistant", "user"]
    assert HELD.form.told in chat[0].content
    assert json.loads(chat[2].content) == {"entities": [{"text": "Ann", "type": "PER"}]}
    assert prompt.in_json().request(Example("1", TEXT)).schema == HELD.form.schema
    lines = prompt.request(Example("1", TEXT), [Demonstration("Ann slept", "PER: Ann")])
    assert lines.schema is None
    assert [message.content for message in lines.messages[:2]] == ["Ann slept", "PER: Ann"]


def test_whoever_wrote_no_json_is_told_how():
    assert HELD.form.told in HELD.correction(())
    assert "JSON" not in LINES.correction(())
