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


def check(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Read configuration, prompt and data, and print the calls and tokens to come. Nothing is asked.

    Example: freeal check configs/mr.yaml --json
    """
    from pathlib import Path

    from freeal import build
    from freeal import config as settings
    from freeal.cli.console import listening
    from freeal.parts import checks, llms

    chosen = settings.load(config, overrides or ())
    prompt, corpus = build.inputs(chosen, *map(Path, chosen.prompts))
    with listening() as emit:
        llm = llms.llm(chosen.llm, prompt, chosen.seed, emit)
        notes = checks.check_all(chosen, prompt, corpus.pool, llm)
        found = {**estimate(chosen, prompt, corpus, llm), "notes": notes}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo("\n".join(told(found)))


def estimate(config: Config, prompt: Prompt, corpus: Corpus, llm: LLM) -> dict[str, Any]:
    """What a run is about, and its calls and prompt tokens: of the first round, and at most of all that may follow."""
    from dataclasses import asdict

    from freeal.parts import forecast

    counts, limit = corpus.report.counts(), config.stop.max_calls
    wanted = forecast.asked_for(config, prompt, corpus, llm)
    lengths = forecast.lengths_of(config, prompt, corpus, llm, wanted)
    calls = forecast.calls_within(wanted, limit)
    return {
        "schema_version": 1,
        "rows": len(corpus.pool),
        "distinct_texts": len(set(corpus.pool.texts)),
        "task": prompt.task.kind,
        "labels": list(prompt.labels),
        "test_rows": len(corpus.test) if corpus.test else 0,
        "rounds": config.rounds,
        "calls": asdict(calls),
        "max_calls": limit,
        "calls_at_most": calls.total if limit is None else min(limit, calls.total),
        "rewritings_at_most": forecast.rewritings(wanted, calls),
        "lists_names": config.lists_names,
        "readers": forecast.readers(config, prompt),
        "questions": prompt.task.questions,
        "verify": config.fusion.verify,
        "tokens_per_prompt": round(lengths.plain, 1),
        "tokens_in": forecast.tokens_of(wanted, calls, lengths),
        "skipped_empty": counts["empty"],  # what `empty` was called at first
        **counts,
    }


def told(found: dict[str, Any]) -> list[str]:
    """The estimate in words, a line each."""
    from freeal import data

    calls, tokens = found["calls"], found["tokens_in"]
    lines = [f"pool:   {found['rows']:,} texts, {found['distinct_texts']:,} distinct; {len(found['labels'])} labels"]
    lines += [f"        {fact}" for fact in data.facts(found)]
    if found["readers"] > 1:
        lines.append(f"panel:  {found['readers']} pairs of LLM and prompt, each asked about every row")
    if found["questions"] > 1:
        lines.append(f"asked:  {found['questions']} questions a text, one for each label")
    if calls["cold_start"]:
        written = f"{calls['cold_start']:,} demonstrations to be written by the LLM"
        lines.append(f"start:  {written}, about {tokens['cold_start']:,} tokens in")
    if calls["names"]:
        lines.append(f"names:  {calls['names']:,} lists of them to be written by the LLM (cold_start.names)")
    elif found["lists_names"]:
        lines.append("names:  none are listed: stop.max_calls leaves too few calls for it (cold_start.names)")
    if found["max_calls"] is not None and not calls["first_round"]:
        lines.append(f"limit:  {found['max_calls']:,} calls leave none for a row (stop.max_calls)")
    lines.append(f"round 0: {calls['first_round']:,} calls, about {tokens['first_round']:,} tokens in")
    if calls["content_free"]:
        asked = f"{calls['content_free']:,} texts of chance words, about {tokens['content_free']:,} tokens in"
        lines.append(f"taste:  {asked} (calibration.content_free)")
    if calls["later_rounds_at_most"]:
        rounds = found["rounds"] - 1
        most = f"{calls['later_rounds_at_most']:,} calls, about {tokens['later_rounds_at_most']:,} tokens in"
        lines.append(f"{'round 1' if rounds == 1 else f'rounds 1 to {rounds}'}: at most {most}")
    if calls["guidelines_at_most"]:
        most = f"{calls['guidelines_at_most']:,} calls, about {tokens['guidelines_at_most']:,} tokens in"
        lines.append(f"meanings: at most {most} (refine_guidelines)")
    if calls["rescue_at_most"]:
        most = f"{calls['rescue_at_most']:,} calls, about {tokens['rescue_at_most']:,} tokens in"
        lines.append(f"rescue: at most {most}, if the first answers tell little of the labels (cold_start.rescue)")
    if calls["test"]:
        lines.append(f"test:   {calls['test']:,} calls, about {tokens['test']:,} tokens in (evaluation.llm_on_test)")
    if found["max_calls"] is not None:
        lines.append(f"in all: at most {found['calls_at_most']:,} calls (stop.max_calls: {found['max_calls']:,})")
    if found["verify"]:
        lines.append("not counted: a call more for each disputed entity (fusion.verify)")
    lines += [f"note:   {note}" for note in found["notes"]]
    return [*lines, "all settings, prompt and data are usable; nothing was asked"]
