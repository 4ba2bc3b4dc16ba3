"""Whether the settings can serve the kind of task, told before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from freeal import candidates, guidelines
from freeal.config import (
    Config,
    OpenAIConfig,
    StatesConfig,
    TaggerConfig,
    TransformerConfig,
)
from freeal.errors import Unfit
from freeal.llm import LLM
from freeal.parts import decisions, llms
from freeal.prompts import Prompt
from freeal.tasks import Task
from freeal.tasks.proposals import proposed
from freeal.types import Example, Pool

STUDENTS: Mapping[str, tuple[str, ...]] = {
    "classification": ("transformer", "linear", "none"),
    "multilabel": ("transformer", "linear", "none"),
    "tokens": ("tagger", "none"),
}
"""Kind of task -> kinds of student that learn it."""


def check_task(config: Config, task: Task) -> None:
    """Make sure that the settings can serve this kind of task.

    Raises:
        Unfit: one of them cannot.
    """
    student, wanted = config.student.kind, STUDENTS[task.kind]
    if student not in wanted:
        raise Unfit(f"student.kind: {student} cannot learn a task of kind {task.kind}; set {' or '.join(wanted)}")
    if task.kind == "multilabel" and objective(config) == "freeal":
        raise Unfit("student.objective: freeal is for one label a text; set plain, candidates or coteaching")
    if objective(config) == "coteaching" and config.filter.kind == "none":
        raise Unfit("student.objective: coteaching weighs rows by the filter; set filter.kind to gmm or quantile")
    if task.kind != "classification" and (config.panel or config.paraphrases):
        raise Unfit(f"llm, prompt: lists are for one label a text; a task of kind {task.kind} takes one of each")
    if task.questions > 1 and isinstance(config.embedder, StatesConfig):
        raise Unfit(f"embedder.kind: hidden_states is for one question a text, not for a task of kind {task.kind}")
    if task.kind != "classification" and config.calibration.kind == "prior":
        raise Unfit(f"calibration.kind: prior is for one label a text, not for a task of kind {task.kind}")
    if isinstance(config.embedder, StatesConfig):
        llms.states_of(config, config.embedder)
    if config.fusion.verify and task.kind != "tokens":
        raise Unfit(f"fusion.verify: is for a task of kind tokens, and this one is of kind {task.kind}")
    if config.reading != "written" and task.kind != "tokens":
        raise Unfit(f"reading: {config.reading} is for entities; a task of kind {task.kind} takes written")
    strategy = config.llm.strategy if isinstance(config.llm, OpenAIConfig) else "auto"
    votes = isinstance(config.llm, OpenAIConfig) and config.llm.votes > 1
    if config.reading != "written" and strategy not in ("auto", "probabilities") and not votes:
        raise Unfit(
            f"reading: {config.reading} needs the probabilities of the types, and llm.strategy: {strategy} gives none; "
            "set it to probabilities, or reading: written"
        )


def check_vectors(config: Config) -> None:
    """Make sure that there are vectors of a student, and somebody to compare by them, where they are wanted.

    Raises:
        Unfit: there are not.
    """
    if config.demos.vectors == "embedder" or config.demos.kind == "none":
        return
    if config.demos.retrieve == "shared":
        raise Unfit("demos.vectors: student needs texts to be compared; set demos.retrieve to nearest or clusters")
    if not isinstance(config.student, TransformerConfig | TaggerConfig):
        raise Unfit(
            f"demos.vectors: a student of kind {config.student.kind} has no vectors of its own; set student.kind to "
            "transformer (entities: tagger), or vectors to embedder"
        )
    if config.rounds == 1:
        raise Unfit("demos.vectors: student is for later rounds; set rounds to 2 or more, or vectors to embedder")


def check_reading(config: Config, asked: LLM) -> None:
    """Make sure that this LLM can be asked as `reading` says, as far as that is known before it is asked anything.

    Raises:
        ConfigError: it cannot.
    """
    if config.reading != "written" and not isinstance(config.llm, OpenAIConfig):
        candidates.check(asked.capabilities, config.reading)


def check_candidates(config: Config, pool: Pool) -> None:
    """Make sure that there is something to ask about, where the LLM is asked about candidates.

    Raises:
        Unfit: no text of the pool has one.
    """
    if config.reading != "written" and not any(proposed(text, config.reading) for text in pool.texts):
        mend = (
            "names are runs of words with capitals; set reading: phrases, or written"
            if config.reading == "names"
            else "set reading: written"
        )
        raise Unfit(f"reading: {config.reading}: no text of the pool has a candidate to ask about: {mend}")


def check_start(config: Config, writes: bool) -> None:
    """Make sure that an LLM writes texts, where the first demonstrations are to be written by one.

    Raises:
        Unfit: none does.
    """
    if config.cold_start.kind == "generated" and not writes:
        raise Unfit(f"cold_start.kind generated: an LLM of kind {config.llm.kind} writes no texts")


def untold_words(prompt: Prompt, example: Example) -> str | None:
    """What to say of words that labels go by and the LLM, asked about `example`, does not see; None where it sees all.

    Where it is asked about entities, the question lists them.
    """
    if prompt.task.kind != "classification":
        return None
    for wording in prompt.wordings:
        seen = "\n".join(message.content for message in wording.render(example))
        named = [word for word in wording.task.answers if word not in wording.labels]
        if hidden := [word for word in named if word not in seen]:
            return (
                f"{wording.path} does not tell the LLM the words that stand for labels ({', '.join(hidden)}); list "
                'them in "## system", as in  {{ words | join(", ") }}'
            )
    return None


def check_all(config: Config, prompt: Prompt, pool: Pool, asked: LLM) -> list[str]:
    """Make sure of all that a run looks at before it asks anything; gives what a user should know, a line each.

    Args:
        asked: the first LLM, which need not be asked anything.

    Raises:
        ConfigError: the run would end at once.
    """
    decisions.calibrator(config, tuple(prompt.labels))
    check_reading(config, asked)
    llms.check_prices(config)
    writes = asked.capabilities.generation or any(each.kind != "recorded" for each in config.panel)
    check_start(config, writes)
    told = [
        f"a run could not begin now: {why}" for each in (config.llm, *config.panel) if (why := llms.without_key(each))
    ]
    told += [note] if (note := untold_words(prompt, pool[0])) else []
    if config.refine_guidelines:
        able = replace(asked.capabilities, generation=writes)
        why = guidelines.obstacle(prompt, pool[0], able, config.rounds, config.learns)
        told += [f"refine_guidelines has no effect: {why}"] if why else []
    return told


def objective(config: Config) -> str | None:
    """What the student minimises, if it is a fine-tuned encoder of texts."""
    return config.student.objective if isinstance(config.student, TransformerConfig) else None
