"""`freeal plan`: what a run will cost, before a single call is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from freeal.cli.console import printable
from freeal.cli.options import AsJson, ConfigFile, Overrides, PriceIn, PriceOut

if TYPE_CHECKING:
    from freeal.config import Config
    from freeal.prompts import Prompt

SECONDS = 1.0
"""Assumed for one call to a server, to say how long a run may take."""


WRITTEN = 60
"""Tokens of a demonstration that the LLM writes."""


NAMED = 20
"""Tokens of a reply that names the entities of a sentence."""
NAMED_AS_JSON = 80
"""The same as JSON: four to five times as many (docs/log.md)."""


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    as_json: AsJson = False,
) -> None:
    """Rows, calls a round, tokens, cost and time to come, and two prompts as they will be sent. Nothing is asked.

    Examples:

      freeal plan configs/mr.yaml

      freeal plan my.yaml --price-in 0.15 --price-out 0.60 --json
    """
    from freeal import build
    from freeal import config as settings
    from freeal.cli.check import estimate
    from freeal.cli.console import listening
    from freeal.cli.run import shorthands
    from freeal.parts import checks, llms, readers
    from freeal.prompts import pretended

    asked = [*(overrides or ()), *shorthands({"llm.price_in": price_in, "llm.price_out": price_out})]
    chosen = settings.load(config, asked)
    prompt, corpus = build.inputs(chosen, *map(Path, chosen.prompts))
    if isinstance(chosen.llm, settings.OpenAIConfig) and chosen.llm.structured:
        prompt = prompt.in_json()  # where the server can, which is found out when it is asked: the dearer way
    with listening() as emit:
        llm = llms.llm(chosen.llm, prompt, chosen.seed, emit)
        notes = checks.check_all(chosen, prompt, corpus.pool, llm)
        found = {**estimate(chosen, prompt, corpus, llm), "notes": notes}
    asking, questions = readers.as_asked(chosen, prompt, corpus.pool)
    found |= {"cost": cost(chosen, found, asking), "seconds": seconds(chosen, found)}
    found["unpriced"] = llms.how_to_price(chosen)
    examples = questions.examples
    shown = pretended(asking, examples[1 : 1 + chosen.demos.shots])
    calls = found["calls"]
    again = bool(calls["cold_start"]) or (calls["later_rounds_at_most"] > 0 and chosen.demos.kind != "none")
    chats = [
        each.render(example, demos)
        for each in asking.wordings for example in examples[:1] for demos in ((), shown)[: 1 + again]
    ]  # fmt: skip
    found["prompts_of_each"] = 1 + again
    found["prompts"] = [[[message.role, message.content] for message in chat] for chat in chats]
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else _told(found))


def cost(config: Config, found: dict[str, Any], prompt: Prompt) -> dict[str, float] | None:
    """Dollars: low, if the run ends after its first round, and no LLM thinks or votes unless it was told to.

    High, if every round asks all it may, and each reply fills the room that `llm.reply_tokens` gives it.
    """
    from freeal import guidelines, lexicon
    from freeal.config import OpenAIConfig
    from freeal.parts.llms import price_of

    asked = (config.llm, *config.panel)
    prices = [known for llm in asked if (known := price_of(llm)) is not None]
    if len(prices) < len(asked):
        return None
    calls, tokens = found["calls"], found["tokens_in"]
    replies = [reply for each in prompt.wordings for reply in each.replies]
    said = max(map(len, replies), default=4 * (NAMED_AS_JSON if prompt.task.form else NAMED)) // 4 + 2
    written = calls["cold_start"] * WRITTEN + calls["names"] * lexicon.ROOM
    read = sum(tokens[part] for part in ("cold_start", "names", "first_round", "content_free", "test"))
    said_anew = found["rewritings_at_most"] * guidelines.TOKENS * (1 + len(prompt.labels))
    rescue = calls["rescue_at_most"]
    rescued = 1.0 - (sum(calls.values()) - found["calls_at_most"]) / rescue if rescue else 0.0  # or in a later round
    low = high = 0.0
    for llm, price in zip(asked, prices, strict=True):  # each is asked about as much
        most = llm.votes if isinstance(llm, OpenAIConfig) and replies else 1
        least = most if isinstance(llm, OpenAIConfig) and llm.strategy == "votes" else 1
        room = (llm.reply_tokens or 0) * most if isinstance(llm, OpenAIConfig) else 0
        first = calls["first_round"] + calls["content_free"] + calls["test"]
        later = calls["later_rounds_at_most"] + calls["guidelines_at_most"]
        low += price.of(read, first * said * least + written)
        high += price.of(read, first * said * most + written)
        high += price.of(tokens["later_rounds_at_most"] + tokens["guidelines_at_most"], later * said * most + said_anew)
        high += price.of(rescued * tokens["rescue_at_most"], rescued * rescue * WRITTEN)
        high += price.of(0, found["calls_at_most"] * room)
    return {"low": round(low / len(asked), 4), "high": round(high / len(asked), 4)}


def seconds(config: Config, found: dict[str, Any]) -> float | None:
    """How long the calls take at most, at one second a call; None for a model in this process: that depends."""
    if config.llm.kind != "openai":
        return None
    calls = int(found["calls_at_most"])
    at_once = calls * SECONDS / config.llm.concurrency
    limit = config.llm.requests_per_minute
    return round(max(at_once, calls * 60.0 / limit if limit else 0.0), 1)


def _told(found: dict[str, Any]) -> str:
    from freeal.cli.check import told
    from freeal.report import clock

    lines = told(found)
    if found["cost"] is None:
        lines.append(f"cost:   unknown; {found['unpriced']}")
    elif found["cost"]["high"]:
        lines.append(f"cost:   {found['cost']['low']:.4f} to {found['cost']['high']:.4f} dollars")
    if found["seconds"] is not None:
        lines.append(f"time:   about {clock(found['seconds'])} of calls, if one takes a second")
    titles = ("as first asked", "as asked later, here with any demonstrations")
    of_each = found["prompts_of_each"]
    for place, chat in enumerate(found["prompts"]):
        which = f"prompt {place // of_each + 1}, " if len(found["prompts"]) > of_each else ""
        lines.append(f"\n--- {which}{titles[place % of_each]}")
        lines += [f"{role}: {printable(content)}" for role, content in chat]
    return "\n".join(lines)
