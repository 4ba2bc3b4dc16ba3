"""Configuration -> LLMs, their names, what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from freeal import money
from freeal.config import (
    Config,
    LLMConfig,
    LocalConfig,
    OpenAIConfig,
    RecordedConfig,
    ScriptedConfig,
    StatesConfig,
    VLLMConfig,
)
from freeal.errors import ConfigError, LLMError
from freeal.events import Emit
from freeal.ledger import FILE as LEDGER
from freeal.ledger import MEMBER, Ledger
from freeal.llm import LLM
from freeal.money import Account, Price, Purse
from freeal.prompts import Prompt


def llm(wanted: LLMConfig, prompt: Prompt, seed: int, emit: Emit, depth: float | None = None) -> LLM:
    """One LLM; one in this process gives the hidden states at `depth` with its answers, if that is not None."""
    match wanted:
        case LocalConfig() as local:
            from freeal.llm.local import LocalLLM

            return LocalLLM(local, emit, depth)
        case VLLMConfig() as engine:
            from freeal.llm.vllm_engine import VLLMEngine

            return VLLMEngine(engine, emit)
        case OpenAIConfig() as remote:
            from freeal.llm.openai_api import OpenAILLM

            held = remote.structured and prompt.task.in_json().form is not None
            return OpenAILLM(remote, emit, schema=held)
        case RecordedConfig() as kept:
            from freeal.llm.recorded import RecordedLLM
            from freeal.llm.replayed import ReplayedLLM

            place = Path(kept.replies)
            if place.is_dir():
                return ReplayedLLM(place / LEDGER)

            def answer(label: str, question: int) -> str:
                if prompt.task.kind == "classification":
                    return label  # read by its name, whatever words a prompt has for it
                return " ".join(prompt.task.answered(label, question).values())

            named = prompt.task.labels if prompt.task.kind == "classification" else prompt.replies
            return RecordedLLM.from_labels(place, kept.id, kept.label, tuple(named), answer, kept.encoding)
        case ScriptedConfig() as script:
            from freeal.llm.scripted import ScriptedLLM

            return ScriptedLLM.from_config(script, prompt.task, seed)


def names_of(llms: Sequence[LLMConfig], prompt_files: Sequence[str] = ()) -> list[str]:
    """A name for each LLM, its model or kind; with several prompts, for each LLM with each prompt, the file's stem.

    Example:
        >>> names_of([LocalConfig(model="qwen")], ["mr.md", "other/mr-2.md"])
        ['qwen, mr', 'qwen, mr-2']
    """
    names = _told_apart([str(getattr(each, "model", each.kind)) for each in llms])
    if len(prompt_files) < 2:
        return names
    return [f"{name}, {stem}" for name in names for stem in _told_apart([Path(file).stem for file in prompt_files])]


def _told_apart(names: Sequence[str]) -> list[str]:
    """The names, numbered where another is the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def states_of(config: Config, states: StatesConfig) -> LocalConfig:
    """The language model whose hidden states are read: the one named, else the run's own."""
    own = config.llm if isinstance(config.llm, LocalConfig) else None
    if states.model is None and own is None:
        raise ConfigError(
            f"embedder.kind: hidden_states reads a model in this process, and llm.kind is {config.llm.kind}; "
            "name one, as in  embedder.model: qwen2.5-coder-0.5b"
        )
    given = own or LocalConfig()
    return given if states.model is None else given.model_copy(update={"model": states.model})


def depth_kept(config: Config, asked: LLMConfig) -> float | None:
    """At which depth hidden states of `asked` are kept while it answers: they are, if it is their model."""
    wanted = config.embedder
    return wanted.depth if isinstance(wanted, StatesConfig) and states_of(config, wanted) == asked else None


def price_of(llm: LLMConfig) -> Price | None:
    """What the tokens of an LLM cost, nothing for what runs in this process; None if that is not wholly known."""
    tokens_in, tokens_out = _dollars(llm)
    return None if tokens_in is None or tokens_out is None else Price(tokens_in, tokens_out)


def _dollars(llm: LLMConfig) -> tuple[float | None, float | None]:
    """For a million tokens in and out: each as configured, or else as listed; None where it is neither."""
    if not isinstance(llm, OpenAIConfig):
        return 0.0, 0.0
    listed = money.price_of(llm.model)
    if listed and llm.batch:
        listed = listed.times(money.IN_A_BATCH)
    return (
        listed.tokens_in if llm.price_in is None and listed else llm.price_in,
        listed.tokens_out if llm.price_out is None and listed else llm.price_out,
    )


def how_to_price(config: Config) -> str | None:
    """Which models have a price that is not known, and how to say what they cost; None if there are none.

    Example:
        >>> how_to_price(Config(data={"pool": "a"}, prompt="b", llm={"kind": "openai", "model": "m", "price_in": 1}))
        'm has no known price: say what a million tokens cost with --price-out'
    """
    llms, told = [config.llm, *config.panel], []
    for place, each in enumerate(llms):
        options = [name for name, price in zip(("in", "out"), _dollars(each), strict=True) if price is None]
        if options and isinstance(each, OpenAIConfig):
            how = " and ".join(
                f"--set llm.{place}.price_{name}=…" if len(llms) > 1 else f"--price-{name}" for name in options
            )
            told.append(f"{each.model} has no known price: say what a million tokens cost with {how}")
    return "; ".join(told) or None


def check_prices(config: Config) -> None:
    """Make sure that every price is known where money counts: with a budget, or where one of an LLM's two is given.

    Raises:
        ConfigError: one is not; it says how to give it.
    """
    unknown = how_to_price(config)
    if unknown is None:
        return
    if config.stop.budget is not None:
        raise ConfigError(f"stop.budget: {unknown} (dollars), or limit the calls with --max-calls")
    if any((each.price_in is None) != (each.price_out is None) for each in _unpriced(config)):
        raise ConfigError(f"llm.price_in, llm.price_out: one without the other; {unknown} (dollars)")


def _unpriced(config: Config) -> list[OpenAIConfig]:
    llms = (config.llm, *config.panel)
    return [each for each in llms if isinstance(each, OpenAIConfig) and price_of(each) is None]


def without_key(llm: LLMConfig) -> str | None:
    """Why a server cannot be asked now for want of a key; None if it can, as far as that is known."""
    if not isinstance(llm, OpenAIConfig):
        return None
    from freeal.llm.openai_api import key_of, urls_of

    try:
        key_of(llm.key_env, urls_of(llm))
    except LLMError as error:
        return str(error)
    return None


def purses(config: Config, ledger: Ledger) -> list[Purse]:
    """What the run may cost, a purse for each LLM's price; what it has cost before is in the ledger.

    Raises:
        ConfigError: see `check_prices`.
    """
    check_prices(config)
    llms = [config.llm, *config.panel]
    prices = [price_of(each) for each in llms]
    usage = ledger.usage()
    limits = config.stop.budget, config.stop.max_calls
    account = Account(usage.cost + usage.doubt, usage.calls + ledger.in_doubt(under_way=False))
    found = [
        Purse(price, *limits, each.votes if isinstance(each, OpenAIConfig) else 1, account)
        for price, each in zip(prices, llms, strict=True)
    ]
    for key, work, request in list(ledger.unanswered()):
        place = _asked_in(config, work)
        asked, purse = llms[place], found[place]
        worst = purse.worst(request)
        purse.await_answer(worst)
        if not (isinstance(asked, OpenAIConfig) and asked.batch):  # the answers of a batch are no lost calls
            purse.lose(worst)
            ledger.failed(key, True, worst)
    ledger.settle()
    return found


def cost_alone(config: Config, ledger: Ledger, works: Sequence[str]) -> float:
    """US dollars for the replies of `works`, each at the price of its LLM, whichever run paid for it.

    An LLM whose price is not known adds nothing.
    """
    llms = [config.llm, *config.panel]
    costs = [
        price.of(*tokens)
        for work, tokens in ledger.tokens(works).items() if (price := price_of(llms[_asked_in(config, work)]))
    ]  # fmt: skip
    return sum(costs, 0.0)


def _asked_in(config: Config, work: str) -> int:
    """Which LLM was asked in `work`, as the ledger names it: its place among `llm` and the panel."""
    names = names_of([config.llm, *config.panel], config.prompts)
    member = work.partition(MEMBER)[2]
    return names.index(member) // len(config.prompts) if member in names else 0
