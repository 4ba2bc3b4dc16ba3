"""`freeal check`: validate everything and say what a run will ask for; no call is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from freeal.cli.options import AsJson, ConfigFile, Overrides

if TYPE_CHECKING:
    from freeal.config import Config
    from freeal.data import Corpus
    from freeal.llm import LLM
    from freeal.prompts import Prompt
    from freeal.types import IntArray, Pool

SAMPLED = 2000
"""Rows whose prompts are counted; their mean stands for the pool."""

TOLD = {
    "skipped_empty": "empty texts skipped",
    "leaked": "pool texts also in the test",
    "long": "texts longer than what is read, and labelled, of them",
    "lost": "entities of gold end behind what is read, or share a word with a longer one: no figure counts them",
    "moved": "entities of gold do not begin and end where words do: they count as whole words",
}
"""What is told of the data where it is not 0."""


def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Read configuration, prompt and data, and print the calls and tokens to come. Nothing is asked.

    Example: freeal check configs/mr.yaml --json
    """
    from pathlib import Path

    from freeal import build
    from freeal import config as settings
    from freeal.cli.console import listening
    from freeal.parts import checks, decisions, llms

    chosen = settings.load(config, overrides or ())
    prompt, corpus = build.inputs(chosen, *map(Path, chosen.prompts))
    with listening() as emit:
        reader = llms.llm(chosen.llm, prompt, chosen.seed, emit)
        decisions.calibrator(chosen, tuple(prompt.labels))
        checks.check_reading(chosen, reader)
        found = estimate(chosen, prompt, corpus, reader)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo("\n".join(told(found)))


def estimate(config: Config, prompt: Prompt, corpus: Corpus, llm: LLM) -> dict[str, Any]:
    """Calls and prompt tokens of the first round, and at most of each later one."""
    import numpy as np

    from freeal import guidelines
    from freeal.parts.readers import as_asked, requests_for_names, worth_asking
    from freeal.select import queries

    pool, demos = corpus.pool, config.demos
    asking, questions = as_asked(config, prompt, pool)
    rows = np.random.default_rng(config.seed).permutation(len(questions))[:SAMPLED]
    tokens = _tokens(asking, questions, rows, 0, demos.max_words, llm)
    asked = len({example.text for example in pool.examples})
    test, per_test = 0, tokens
    if corpus.test is not None and corpus.test_gold is not None and config.evaluation.llm_on_test:
        test = len({example.text for example in corpus.test.examples})
        of_test = as_asked(config, prompt, corpus.test)[1]
        seen = np.random.default_rng(config.seed).permutation(len(of_test))[:SAMPLED]
        per_test = _tokens(asking, of_test, seen, 0, demos.max_words, llm)
    # each LLM asks each row's questions with each prompt; tokens are counted as the first one does
    readers = (1 + len(config.panel)) * len(prompt.wordings)
    a_row = readers * prompt.task.questions * len(questions) / len(pool) * worth_asking(config, prompt)
    later = 0 if config.query.kind == "none" else int(np.ceil(config.query.share * asked))
    written = config.cold_start.total if config.cold_start.kind == "generated" else 0
    listing = requests_for_names(config, prompt)
    shots = 0 if demos.kind == "none" else demos.shots
    if shots and demos.retrieve == "shared":
        shots = max(shots, len(prompt.labels))  # every label is shown
    if config.reading != "written":
        shots *= 2  # of each mostly one entity, and words that are none
    per_shown = _tokens(asking, questions, rows, shots, demos.max_words, llm)
    scouted = min(asked, queries.scouted(len(pool), len(prompt.labels), config.query.scout, config.asking_rounds))
    anew, chat = 0, 0
    if config.refine_guidelines and guidelines.serves(prompt.task):
        guidelines.check(prompt, pool[0])
        anew, chat = config.rounds - 1, llm.count_tokens([guidelines.pretended(prompt, pool)])[0]
    rewriting = guidelines.most_calls(int(np.ceil(a_row)))
    first = scouted * (per_shown if written else tokens)
    return {
        "schema_version": 1,
        "rows": len(pool),
        "distinct_texts": asked,
        "task": prompt.task.kind,
        "labels": list(prompt.labels),
        "test_rows": len(corpus.test) if corpus.test else 0,
        "rounds": config.rounds,
        "calls": {"cold_start": written, "names": len(listing), "first_round": int(np.ceil(a_row * scouted)),
                  "later_rounds_at_most": int(np.ceil(a_row * later)) * (config.rounds - 1),
                  "test": int(np.ceil(a_row * test)),
                  "guidelines_at_most": anew * rewriting},
        "lists_names": config.lists_names,
        "readers": readers,
        "questions": prompt.task.questions,
        "verify": config.fusion.verify,
        "tokens_per_prompt": round(tokens, 1),
        "tokens_in": {"names": sum(llm.count_tokens(listing)),
                      "first_round": round(a_row * first), "test": round(a_row * test * per_test),
                      "later_rounds_at_most": round(a_row * later * (config.rounds - 1) * per_shown),
                      "guidelines_at_most": round(anew * ((rewriting - 1) * per_shown + chat))},
        "skipped_empty": len(corpus.report.empty),
        "duplicates": corpus.report.duplicates,
        "leaked": len(corpus.report.leaked),
        "long": corpus.report.long,
        "lost": corpus.report.lost,
        "moved": corpus.report.moved,
    }  # fmt: skip


def _tokens(prompt: Prompt, pool: Pool, rows: IntArray, shots: int, longest: int, llm: LLM) -> float:
    """Mean prompt tokens of `rows`, each shown with `shots` others of at most `longest` words, labels in turn.

    Of several wordings of the prompt, the mean of all.
    """
    import numpy as np

    from freeal.prompts import pretended

    texts = [pool[int(row)] for row in rows]
    teachers = [text for text in texts if len(text.text.split()) <= longest] or texts
    requests = []
    for place, text in enumerate(texts):
        others = [teachers[(place + 1 + i) % len(teachers)] for i in range(min(shots, len(teachers)))]
        shown = pretended(prompt, others)
        requests += [each.request(text, shown) for each in prompt.wordings]
    return float(np.mean(llm.count_tokens(requests))) if requests else 0.0


def told(found: dict[str, Any]) -> list[str]:
    """The estimate in words, a line each."""
    calls, tokens = found["calls"], found["tokens_in"]
    lines = [f"pool:   {found['rows']:,} texts, {found['distinct_texts']:,} distinct; {len(found['labels'])} labels"]
    for key, what in TOLD.items():
        if found[key]:
            lines.append(f"        {found[key]:,} {what}")
    if found["readers"] > 1:
        lines.append(f"panel:  {found['readers']} pairs of LLM and prompt, each asked about every row")
    if found["questions"] > 1:
        lines.append(f"asked:  {found['questions']} questions a text, one for each label")
    if calls["cold_start"]:
        lines.append(f"start:  {calls['cold_start']:,} demonstrations to be written by the LLM")
    if calls["names"]:
        lines.append(f"names:  {calls['names']:,} lists of them to be written by the LLM (cold_start.names)")
    elif found["lists_names"]:
        lines.append("names:  none are listed: stop.max_calls leaves too few calls for it (cold_start.names)")
    lines.append(f"round 0: {calls['first_round']:,} calls, about {tokens['first_round']:,} tokens in")
    if calls["later_rounds_at_most"]:
        rounds = found["rounds"] - 1
        most = f"{calls['later_rounds_at_most']:,} calls, about {tokens['later_rounds_at_most']:,} tokens in"
        lines.append(f"{'round 1' if rounds == 1 else f'rounds 1 to {rounds}'}: at most {most}")
    if calls["guidelines_at_most"]:
        most = f"{calls['guidelines_at_most']:,} calls, about {tokens['guidelines_at_most']:,} tokens in"
        lines.append(f"meanings: at most {most} (refine_guidelines)")
    if calls["test"]:
        lines.append(f"test:   {calls['test']:,} calls, about {tokens['test']:,} tokens in (evaluation.llm_on_test)")
    if found["verify"]:
        lines.append("not counted: a call more for each disputed entity (fusion.verify)")
    return [*lines, "all settings, prompt and data are usable; nothing was asked"]
