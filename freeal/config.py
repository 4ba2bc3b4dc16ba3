"""What a run is told: frozen models, read from YAML, a preset beneath and `--set` on top.

Order of precedence, last wins: the defaults here, the preset, the configuration file, `--set a.b=c`. A preset that says
`over_file: true` and is chosen by `--set` stands over the file: with what that says it would not be itself.
An unknown key is an error that names the key meant. Relative paths are taken from the folder of the
configuration file; `${NAME}` and `${NAME:-fallback}` in paths are replaced from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from freeal.errors import ConfigError, did_you_mean

PRESETS = Path(__file__).parent / "presets"


class Section(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class DataConfig(Section):
    """Where the texts are. Only `pool` is needed; a file of one text a line will do."""

    pool: str = Field(description="csv, tsv, jsonl, parquet, txt; a saved data set's folder; or a hub name")
    test: str | None = Field(None, description="a separate file to measure on; nothing selects by it")
    text: str = Field("text", description="column with the text")
    id: str | None = Field("id", description="column with ids; rows without one get a hash of their text")
    gold: str | tuple[str, ...] | None = Field(
        None,
        description="column with true labels, for measuring only: names; of several labels a text lists, or names with "
        "a ; between them, or a column of 0 and 1 for each label: [price, speed]; of entities tags or spans",
    )
    test_gold: str | tuple[str, ...] | None = Field(None, description="the same in the test, where its name is another")
    rewording: str | None = Field(None, description="column with a second wording (back-translation)")
    subset: str | None = Field(None, description="configuration of a Hugging Face data set: tweet_eval has emotion")
    split: str = Field("train", description="split of a Hugging Face data set to take the pool from")
    test_split: str = Field("test", description="split of a Hugging Face data set to take the test from")
    sample: Positive | None = Field(None, description="take this many rows of the pool, shuffled by `seed`")
    test_sample: Positive | None = Field(None, description="take this many rows of the test, shuffled by seed 0")
    encoding: str = Field("utf-8", description="of text files; a byte order mark is accepted")
    max_words: Positive | None = Field(None, description="cut texts after so many words, for LLM and student")


class LocalConfig(Section):
    """A causal model in this process, through transformers."""

    kind: Literal["local"] = "local"
    model: str = Field("qwen2.5-coder-0.5b", description="embedded name, folder, GGUF file or hub name")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto", description="int8: eight bits, on a processor, in half to two thirds of the time (docs/architecture.md)"
    )
    batch_tokens: Positive | None = Field(None, description="tokens in one forward pass; default 512, on a GPU 8192")
    max_prompt_tokens: Positive = Field(4096, description="longer prompts are skipped and counted")


class VLLMConfig(Section):
    """vLLM's engine in this process: for pools that deserve a GPU of their own (docs/vllm.md)."""

    kind: Literal["vllm"] = "vllm"
    model: str = Field(description="embedded name, folder or hub name")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_prompt_tokens: Positive = Field(4096, description="longer prompts are skipped and counted")
    gpu_memory: Share = Field(0.9, description="share of the GPU's memory that the engine may take")
    gpus: Positive = Field(1, description="GPUs that one model is spread over (tensor parallel)")
    chunk: Positive = Field(16384, description="rows in one call of the engine: what a crash may lose")
    engine: Mapping[str, Any] = Field({}, description="further arguments of vllm.LLM, taken as they are")


SAID = {
    "model", "messages", "n", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "response_format",
    "structured_outputs", "stream",
}  # fmt: skip
"""Fields of a request that `llm.extra_body` may not set."""


class OpenAIConfig(Section):
    """Any server that speaks the OpenAI chat protocol."""

    kind: Literal["openai"] = "openai"
    model: str
    base_url: str | tuple[str, ...] | None = Field(
        None, description="one or several, taken in turn; default: the environment's OPENAI_BASE_URL, or OpenAI itself"
    )
    key_env: str | None = Field(
        None,
        description="environment variable that holds the key; default: OPENAI_API_KEY, for OpenAI and the server that "
        "OPENAI_BASE_URL names alone",
    )
    strategy: Literal["auto", "probabilities", "constraint", "text", "votes"] = Field(
        "auto", description="how labels are asked for; auto finds out the best way that the server understands"
    )
    require: Literal["probabilities", "constraint"] | None = Field(None, description="make its absence an error")
    votes: Positive = Field(1, description="replies a row, whose shares stand for probabilities a server does not give")
    structured: bool = Field(True, description="entities: as JSON held to a schema, if the server can; else as lines")
    parse_retries: int = Field(1, ge=0, description="times a row is asked again whose reply names no label")
    concurrency: Positive = Field(32, description="requests in flight, at the best of times")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(60.0, gt=0, description="seconds for one attempt")
    row_timeout: float = Field(300.0, gt=0, description="seconds for all attempts of a row, outages apart")
    attempts: Positive = Field(6, description="for one row; rate limits and outages are not counted")
    max_wait: float = Field(600.0, ge=0, description="seconds a rate limit may hold up a row before the run stops")
    server_wait: float = Field(120.0, ge=0, description="seconds to wait for a server that is gone")
    batch: bool = Field(False, description="ask by the file (Batch API): within a day, at half the price")
    batch_poll: float = Field(30.0, gt=0, description="seconds between two looks at a batch")
    batch_size: int = Field(
        50_000, gt=0, le=50_000, description="requests a batch at most: fewer where tokens under way are limited"
    )
    reply_tokens: Positive | None = Field(
        None, description="room for a reply and the thoughts before it; default: little, but 2,048 for what thinks"
    )
    extra_body: Mapping[str, Any] = Field(
        {}, description="further fields of each request, as in {reasoning_effort: low}"
    )
    price_in: float | None = Field(None, ge=0, description="dollars for a million tokens; default: as listed, if it is")
    price_out: float | None = Field(None, ge=0, description="the same for tokens of replies")
    grace: float = Field(20.0, ge=0, description="seconds for what is under way when a run is interrupted")

    @field_validator("base_url")
    @classmethod
    def _without_secrets(cls, url: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        """Settings are written to disk, and a secret in one would be, too."""
        for each in (url,) if isinstance(url, str) else url or ():
            parts = urlsplit(each)
            if parts.query or "@" in parts.netloc:
                raise ValueError("expected no user, password or query in the URL; name the key's variable in key_env")
        return url

    @field_validator("extra_body")
    @classmethod
    def _of_others(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """What freeal says itself is reckoned with when replies are read and paid for."""
        if own := sorted(SAID.intersection(fields)):
            raise ValueError(f"expected fields that freeal does not send itself, found {', '.join(own)}")
        return fields


class RecordedConfig(Section):
    """Kept replies: a label file (column `label`, found by id), or the ledger of an earlier run."""

    kind: Literal["recorded"] = "recorded"
    replies: str = Field(description="csv, jsonl or parquet with ids and labels; or a run directory")
    id: str = "id"
    label: str = "label"
    encoding: str = Field("utf-8", description="of a text file; a byte order mark is accepted")


class ScriptedConfig(Section):
    """The test double: answers by keywords, with chosen noise, without any model."""

    kind: Literal["scripted"] = "scripted"
    keywords: Mapping[str, Sequence[str]] = Field(description="label: words that give it away")
    noise: Share = Field(0.0, description="share of rows answered with another label, fixed by text and seed")
    unreadable: Share = Field(0.0, description="share of rows answered with prose, fixed by text and seed")
    probabilities: bool = True


LLMConfig = Annotated[
    LocalConfig | VLLMConfig | OpenAIConfig | RecordedConfig | ScriptedConfig, Field(discriminator="kind")
]


class ColdStartConfig(Section):
    """What the LLM is shown in the first round, before there is a student."""

    kind: Literal["none", "generated"] = "none"
    total: Positive = Field(100, description="labelled texts the LLM is to write, over all labels")
    seen: Positive = Field(5, description="pool texts shown to it as examples of style")
    temperature: float = Field(0.9, ge=0)
    rescue: int = Field(
        60,
        ge=0,
        description="texts the LLM is to write, over all labels, when its first answers tell little of the labels: a "
        "student of these labels the pool, in place of further rounds, if it is better than chance on what was "
        "written, and tells more (whatever it tells, where they tell less than stop.min_information); 0: never",
    )
    rescue_below: Share = Field(
        0.2, description="write them when the first answers tell less of the labels than this share of all they might"
    )
    names: int = Field(
        12,
        ge=0,
        description="with reading names or phrases: lists of names of each type that the LLM writes from memory, a "
        "call each; how like those a candidate is weighs as much as what the LLM says of it; 0: none",
    )


class CalibrationConfig(Section):
    """How the LLM's taste for some labels is taken out, without gold."""

    kind: Literal["none", "batch", "estimated", "prior"] = Field(
        "estimated",
        description="none; divide by the mean of the pass; bring it to the shares of the labels under which they are "
        "best learned from the texts (of two labels see content_free, too); or to stated shares",
    )
    prior: Mapping[str, float] | None = Field(None, description="label: share, for kind prior")
    content_free: int = Field(
        24,
        ge=0,
        description="estimated, two labels: texts of words drawn at random from the pool that the LLM is asked about, "
        "a call each; what it says of them is its taste alone, by which a rare label stays rarer. Only of one LLM that "
        "gives probabilities, with one prompt without other columns, of texts of four words and more, and where the "
        "first round asks about five times as many rows; 0: none",
    )
    passes: Literal["latest", "average"] = Field(
        "average", description="of the passes with demonstrations; the first is replaced"
    )
    sober: bool = Field(
        True,
        description="a later pass over the rows of the first is made no surer, in the mean, than that was; not of "
        "entities, nor of mere words",
    )


class QueryConfig(Section):
    """Which rows the LLM is asked about. Of several rounds the first, without demonstrations, is a scout."""

    scout: Share = Field(0.25, description="of several rounds the first asks about this share, drawn at random")
    kind: Literal["all", "not_clean", "uncertain", "gain", "random", "none"] = Field(
        "uncertain",
        description="later rounds: all rows; those not believed; all, the most doubtful first; all, those first of "
        "which one more answer promises most for its length; a random half; none (the first then asks about all)",
    )
    min_gain: Share = Field(
        0.0, description="gain: rows that promise less are not asked (0.01 is one label in a hundred)"
    )
    share: Share = Field(1.0, description="a later round asks about at most this share of the pool")


class DemosConfig(Section):
    """Which rows return to the LLM as demonstrations, and how they are shown."""

    kind: Literal["clustered", "none"] = "clustered"
    total: Positive = Field(100, description="size of the demonstration pool, shared out among the labels")
    top: Share = Field(0.2, description="most confident share of a label's believed rows that may demonstrate it")
    labelled_by: Literal["student", "posterior"] = "posterior"
    trust: Literal["agreement", "neighbours"] = Field(
        "agreement",
        description="which believed rows may demonstrate: all; those whose nearest neighbours mostly have their label",
    )
    retrieve: Literal["nearest", "clusters", "shared"] = Field(
        "shared", description="per row; one set for each cluster of the pool; or one set for all (cheap)"
    )
    vectors: Literal["embedder", "student"] = Field(
        "embedder",
        description="nearest, clusters: whose vectors texts are compared by: the frozen embedder's, or the last "
        "round's student's (transformer, tagger)",
    )
    sets: Positive = Field(8, description="clusters: at most so many sets of demonstrations")
    reuse: float | None = Field(
        None, gt=0, description="nearest: no demonstration in more than so many times its even share of the prompts"
    )
    order: Literal["similar", "frequent"] = Field(
        "frequent", description="nearest: most similar first; or first those that most prompts share, read once"
    )
    shots: Positive = Field(8, description="demonstrations in a prompt, over all labels")
    max_words: Positive = Field(60, description="longer texts do not become demonstrations")


class EncoderConfig(Section):
    """A frozen sentence encoder: for retrieval, and for the linear student."""

    kind: Literal["encoder"] = "encoder"
    model: str = "all-minilm-l6-v2"


class TfidfConfig(Section):
    """Words and characters, no model at all."""

    kind: Literal["tfidf"] = "tfidf"
    dimensions: Positive = 256


class StatesConfig(Section):
    """Hidden states of a language model in this process that is asked the run's question: the vectors it thinks in."""

    kind: Literal["hidden_states"] = "hidden_states"
    model: str | None = Field(None, description="embedded name, folder or hub name; default: the run's own local LLM")
    depth: Share = Field(0.7, description="which layer, as a share of all")


EmbedderConfig = Annotated[EncoderConfig | TfidfConfig | StatesConfig, Field(discriminator="kind")]


class TransformerConfig(Section):
    """An encoder fine-tuned on the noisy labels."""

    kind: Literal["transformer"] = "transformer"
    model: str = Field("all-minilm-l6-v2", description="embedded name, folder or hub name")
    objective: Literal["plain", "freeal", "candidates", "coteaching"] = Field(
        "plain",
        description="what is minimised: cross-entropy; FreeAL's loss; cross-entropy to targets the student refines "
        "among the candidates (CanDist); cross-entropy weighted by how easy the judge finds a row",
    )
    epochs: Positive = 4
    min_steps: int = Field(150, ge=0, description="a small pool is read in more epochs, until there are so many steps")
    warmup_epochs: int = Field(3, ge=0, description="freeal: epochs before the mask of clean rows is used")
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    batch_size: Positive = 32
    max_tokens: Positive = 128
    clip: float = Field(1.0, gt=0)
    warmup_share: Share = Field(0.0, description="share of the steps in which the learning rate rises")
    mixup_alpha: float = Field(4.0, gt=0, description="freeal: Beta(alpha, alpha)")
    temperature: float = Field(0.85, gt=0, description="of the student's own word where it is a target")
    ramp_epochs: float = Field(10.0, gt=0, description="freeal: epochs until the extra terms weigh one")
    refine: Share = Field(0.5, description="candidates: the student's share of the targets after the last epoch")
    judge: Literal["none", "linear", "cross_fitted"] = Field(
        "cross_fitted",
        description="who judges the rows it learned from: itself; or, not having seen the row, logistic regression on "
        "frozen embeddings (embedder), in seconds; or the same encoder trained on the other `folds`",
    )
    folds: int = Field(2, ge=2, description="cross_fitted: so many trainings more, each on the rows of the other folds")
    device: str = "auto"

    @model_validator(mode="after")
    def _someone_judges(self) -> Self:
        if self.objective == "coteaching" and self.judge == "none":
            raise ValueError("objective coteaching needs a judge: set judge to linear or cross_fitted")
        return self


class TaggerConfig(Section):
    """An encoder fine-tuned to label words."""

    kind: Literal["tagger"] = "tagger"
    model: str = Field("all-minilm-l6-v2", description="embedded name, folder or hub name")
    objective: Literal["plain", "robust", "freeal"] = Field(
        "plain",
        description="robust: each O, and each entity as a whole, teaches by how clean its loss out of fold makes it; "
        "what is doubted is to be read alike twice; freeal: FreeAL's loss, word by word, clean by its own losses",
    )
    folds: int = Field(
        2,
        ge=0,
        description="each row is judged by a training on the other folds, so that a run costs `folds` trainings on "
        "part of the rows besides the last on all (2: about double); 0 or 1: it judges itself",
    )
    epochs: Positive = 4
    min_steps: int = Field(150, ge=0, description="a small pool is read in more epochs, until there are so many steps")
    warmup_epochs: int = Field(3, ge=0, description="freeal: epochs before the mask of clean words is used")
    learning_rate: float = Field(3e-4, gt=0, description="of all-minilm-l6-v2; larger encoders usually want less")
    weight_decay: float = Field(0.01, ge=0)
    batch_size: Positive = 32
    max_tokens: Positive = Field(
        160, description="words behind so many tokens are not read: what the LLM says of them stands, else O"
    )
    capitals: bool = Field(True, description="an encoder whose tokens have none is told them by marks before the words")
    clip: float = Field(1.0, gt=0)
    warmup_share: Share = Field(0.0, description="share of the steps in which the learning rate rises")
    hidden: Share = Field(0.1, description="freeal: share of the tokens that the second wording of a text hides")
    mixup_alpha: float = Field(4.0, gt=0, description="freeal: Beta(alpha, alpha)")
    temperature: float = Field(0.85, gt=0, description="freeal, robust: of the student's own word where it is a target")
    ramp_epochs: float = Field(10.0, gt=0, description="freeal, robust: epochs until the extra terms weigh one")
    device: str = "auto"

    @model_validator(mode="after")
    def _someone_judges(self) -> Self:
        if self.objective == "robust" and self.folds < 2:
            raise ValueError("objective robust weighs words by their losses out of fold: set folds to 2 or more")
        if self.objective == "freeal" and self.folds > 1:
            raise ValueError("objective freeal believes words by the losses of its own training: set folds to 0")
        return self


class LinearConfig(Section):
    """Logistic regression on frozen embeddings: seconds, and its losses are out of fold."""

    kind: Literal["linear"] = "linear"
    c: float | None = Field(
        None, gt=0, description="inverse strength of the regularisation; default: 1, and 10 for any number of labels"
    )
    folds: int = Field(5, ge=2)


class NoStudentConfig(Section):
    """Nobody learns: the LLM's labels are the result."""

    kind: Literal["none"] = "none"


StudentConfig = Annotated[
    TransformerConfig | LinearConfig | TaggerConfig | NoStudentConfig, Field(discriminator="kind")
]


class FilterConfig(Section):
    """Which labels are believed, by the student's losses."""

    kind: Literal["gmm", "quantile", "none"] = "gmm"
    threshold: Share = Field(0.7, description="gmm: P(clean) above which a label is believed")
    share: Share = Field(0.5, gt=0, description="quantile: share of the smallest losses that is believed")


class BeliefConfig(Section):
    """Which rows are believed in the end: they are not asked again, and may become demonstrations."""

    kind: Literal["agreement", "confident"] = Field(
        "agreement",
        description="filter and student agree with the LLM; or FreeAL's most confident agreeing rows",
    )
    share: Share = Field(0.2, description="confident: this share of each label's agreeing rows")


class FusionConfig(Section):
    """How LLM and student become one distribution a row."""

    kind: Literal["log_linear", "freeal"] = "log_linear"
    llm: float = Field(0.5, ge=0, description="weight of the LLM's log-probabilities")
    student: float = Field(0.5, ge=0, description="weight of the student's log-probabilities; not both are 0")
    modest: bool = Field(
        True,
        description="log_linear: a student surer, of rows it did not learn from, than it agrees with the LLM is "
        "tempered (not of entities), and its weight is no more than the share of the LLM's word that it foretells",
    )
    sharpen: bool = Field(
        True,
        description="log_linear: after a later round, pooled labels are made as sure, in the mean, as the sober LLM; "
        "none changes; not of entities, nor of mere words",
    )
    shares: bool = Field(
        True,
        description="log_linear, with reading names or phrases: pooled labels have each type as often as the LLM's "
        "calibrated answers do, where a mean of two that disagree would find fewer entities than either",
    )
    verify: bool = Field(
        False,
        description="tokens: ask the LLM, yes or no, about each entity that it and the student do not both mark; "
        "a call an entity",
    )

    @model_validator(mode="after")
    def _someone_speaks(self) -> Self:
        if self.kind == "log_linear" and self.llm == self.student == 0.0:
            raise ValueError("fusion.llm and fusion.student are both 0: nobody would have a say in the labels")
        return self


class StopConfig(Section):
    """When enough is enough."""

    min_change: Share = Field(0.005, description="stop when fewer labels than this share changed in a round")
    max_calls: Positive | None = Field(
        None, description="calls to the LLM; the test is read only if it fits, too, or its replies are kept"
    )
    count_reused: bool = Field(
        False, description="replies taken over with --reuse count as calls, too: a study wants it"
    )
    max_failed: Share = Field(0.2, description="a larger share of rows without an answer is a warning, and exit code 3")
    min_information: Share = Field(
        0.08,
        description="stop, warn and trust the first answers no more than they deserve when they tell less of the "
        "labels than this share of all they might",
    )
    rollback: bool = Field(
        True, description="a round that did harm, as told without gold, is not the result: an earlier one is"
    )
    budget: float | None = Field(
        None, gt=0, description="dollars that may be spent; the run stops before it spends more"
    )


class EvaluationConfig(Section):
    """What is measured where gold labels are known. Nothing here selects anything."""

    llm_on_test: bool = Field(True, description="ask the LLM about the test rows too, zero-shot, once")


class Config(Section):
    """One run."""

    preset: str = Field("default", description="default, zero-shot or freeal-paper")
    name: str | None = Field(None, description="of the run directory; default: the configuration file's name")
    seed: int = Field(0, ge=0)
    rounds: int = Field(2, gt=0, le=99)
    data: DataConfig
    prompt: str = Field(description="a prompt file: labels, their meanings, and the chat")
    paraphrases: tuple[str, ...] = Field(
        (),
        description="further prompts that ask the same in other words; each reads every row, too, and what is said "
        "is pooled. A list in `prompt` says the same",
    )
    llm: LLMConfig = LocalConfig()
    panel: tuple[LLMConfig, ...] = Field(
        (), description="further LLMs that read every row, too; what they say is pooled. A list in `llm` says the same"
    )
    reading: Literal["written", "names", "phrases"] = Field(
        "written",
        description="tokens: how the LLM is asked. It writes the entities; or it is asked what each candidate is, by "
        "the probabilities of the types: runs of capitalised words, or besides groups of up to three words",
    )
    cold_start: ColdStartConfig = ColdStartConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    query: QueryConfig = QueryConfig()
    demos: DemosConfig = DemosConfig()
    refine_guidelines: bool = Field(
        False,
        description="before each later round the LLM says anew what the labels mean, from rows on which it and the "
        "student differ; kept if they then agree as often on others. About 49 calls for each LLM and round",
    )
    embedder: EmbedderConfig = EncoderConfig()
    student: StudentConfig = TransformerConfig()
    targets: Literal["hard", "soft", "candidates", "posterior", "refined"] = Field(
        "soft",
        description="what the student learns: labels, distributions, those over plausible labels alone, distributions "
        "fused with the last student's, or freeal's corrected labels",
    )
    filter: FilterConfig = FilterConfig()
    belief: BeliefConfig = BeliefConfig()
    fusion: FusionConfig = FusionConfig()
    stop: StopConfig = StopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _first_and_others(cls, settings: Any) -> Any:
        """A list of LLMs is a first one and a panel; one of prompts, a first one and paraphrases."""
        if isinstance(settings, Mapping):
            for one, more in (("llm", "panel"), ("prompt", "paraphrases")):
                if isinstance(settings.get(one), list) and settings[one]:
                    first, *others = settings[one]
                    settings = {**settings, one: first, more: [*others, *settings.get(more, ())]}
        return settings

    @model_validator(mode="after")
    def _nobody_twice(self) -> Self:
        everybody = [self.llm, *self.panel]
        for place, llm in enumerate(everybody):
            if llm in everybody[:place]:
                raise ValueError(
                    f"llm: the same LLM twice ({getattr(llm, 'model', llm.kind)}); its word would count twice"
                )
        return self

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt file, the first one first."""
        return (self.prompt, *self.paraphrases)

    @property
    def asking_rounds(self) -> int:
        """Rounds in which the LLM may be asked about rows: the first alone, if later ones are to ask nobody."""
        return 1 if self.query.kind == "none" else self.rounds

    @property
    def learns(self) -> bool:
        """Whether there is a student; else the LLM alone has spoken."""
        return not isinstance(self.student, NoStudentConfig)

    @property
    def keeps_shares(self) -> bool:
        """Whether pooled labels have each type as often as the LLM's answers, whose shares calibration has set."""
        return self.fusion.kind == "log_linear" and self.fusion.shares and self.reading != "written"

    @property
    def lists_names(self) -> bool:
        """Whether names from the LLM's memory have a say; they keep to the shares that calibration has set."""
        return self.reading != "written" and self.cold_start.names > 0 and self.calibration.kind != "none"


def load(path: Path, overrides: Sequence[str] = (), above: Sequence[str] = ()) -> Config:
    """Read a configuration file over its preset, with `--set` overrides on top; paths become absolute.

    `above` are overrides over those, in a layer of their own: where they choose another kind, it starts afresh.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, a value does not fit.
    """
    changes: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for layer, given in zip(changes, (overrides, above), strict=True):
        for override in given:
            assign(layer, override)
    merged = layered(read_yaml(path), changes, str(path))
    merged.setdefault("name", path.stem)
    chosen = parse(merged, str(path))
    _check_name(chosen)
    return _absolute(chosen, path.parent)


def forked(kept: Mapping[str, Any], overrides: Sequence[str], where: str) -> Config:
    """The settings `kept` by a run with those of `--set` over them, whose paths are taken from where the user stands.

    A preset chosen by `--set` takes the place of the kept one: what was as that, or the default, has it, is so no more.

    Raises:
        ConfigError: they cannot be used; starts with `where`.
    """
    changes: dict[str, Any] = {}
    for override in overrides:
        assign(changes, override)
    settings = one_list(kept)
    own = _beside_preset(settings, where) if "preset" in changes else settings
    chosen = parse(layered(own, [changes], where), where)
    _check_name(chosen)
    return _absolute(chosen, Path.cwd(), frozenset(_strings(settings)))


def _beside_preset(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Kept `settings` without those that are as their preset has them, or by default."""
    needed = {key: settings[key] for key in ("data", "prompt", "llm") if key in settings}
    preset = {"preset": settings.get("preset", "default")}
    kinds = {key: {"kind": settings[key]["kind"]} for key in _kinds() if key != "llm" and key in settings}
    beneath = parse(layered({**needed, **preset, **kinds}, (), where), where).model_dump(mode="json")
    own, plain = _beside(settings, beneath), layered(preset, (), where)
    chosen = {key: kind for key, kind in kinds.items() if key in own or kind["kind"] != plain[key]["kind"]}
    return {**_merge(chosen, own), **needed}


def _beside(settings: Mapping[str, Any], beneath: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `settings` that are others than `beneath`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        below = beneath.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            found |= {key: inner} if (inner := _beside(value, below)) else {}
        elif key not in beneath or value != below:
            found[key] = value
    return found


def _strings(settings: object) -> Iterator[str]:
    """Every text in `settings`."""
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, Mapping | list):
        for each in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _strings(each)


def _check_name(config: Config) -> None:
    if config.name and "/" in config.name:
        raise ConfigError(
            f"name: {config.name!r} has a / in it; it names a folder in runs/: --out says where to put it"
        )


def one_list(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Kept settings as they may be changed by `--set`: `llm` and `panel` are one list again, if there are several.

    Example:
        >>> one_list({"llm": {"kind": "local"}, "panel": [{"kind": "openai"}]})
        {'llm': [{'kind': 'local'}, {'kind': 'openai'}]}
    """
    others = {key: value for key, value in settings.items() if key != "panel"}
    return {**others, "llm": [settings["llm"], *settings["panel"]]} if settings.get("panel") else dict(settings)


def changed(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Kept settings with those of `--set` on top.

    Raises:
        ConfigError: one of them cannot be understood.
    """
    changes: dict[str, Any] = {}
    for override in overrides:
        assign(changes, override)
    return _merge(one_list(settings), changes)


def layered(settings: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """`settings` over their preset, and `changes` over both, the last one highest.

    Raises:
        ConfigError: the preset is unknown; starts with `where`.
    """
    layers = (settings, *changes)
    choosing = next((layer for layer in layers[::-1] if "preset" in layer), {})
    name = choosing.get("preset", "default")
    known = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"{where}: preset {name!r} is unknown{did_you_mean(str(name), known)}; there are {', '.join(known)}"
        )
    preset = _preset(name, layers)
    over_file = preset.pop("over_file", False) and choosing is not settings
    merged = _merge(_kinds(), preset)
    for layer in layers:
        merged = _merge(_merge(merged, preset) if over_file and layer is choosing else merged, layer)
    return merged


def parse(settings: Mapping[str, Any], where: str) -> Config:
    """Settings -> Config; every fault is told in one ConfigError that starts with `where`."""
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(fault, settings)}" for fault in error.errors())
        raise ConfigError(f"{where}: {error.error_count()} setting(s) cannot be used:\n{faults}") from error


def to_yaml(config: Config) -> str:
    """The configuration with every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _preset(name: str, above: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of a preset; of its students the one that is of the kind which the layers `above` choose."""
    settings = read_yaml(PRESETS / f"{name}.yaml")
    others = settings.pop("other_students", {})
    students = [layer["student"] for layer in above if isinstance(layer.get("student"), dict)]
    chosen = next((student["kind"] for student in reversed(students) if "kind" in student), None)
    return settings | ({"student": others[chosen]} if chosen in others else {})


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a file as they stand there.

    Raises:
        ConfigError: it is missing, or no YAML mapping.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(settings).__name__}")
    return settings


def assign(settings: dict[str, Any], override: str) -> None:
    """Set the KEY=VALUE of a `--set` in `settings`."""
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r}: expected KEY=VALUE, for instance student.epochs=5")
    *parents, last = key.strip().split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is no section")
    try:
        settings[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: {value!r} is no YAML value: {error}") from error


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; where `kind` chooses among sections, another kind starts afresh, without the old keys."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if key == "llm" and isinstance(old, list) and isinstance(value, dict) and old:
            merged[key] = _members(old, value)
        elif isinstance(old, dict) and isinstance(value, dict) and not _another_kind(key, old, value):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _members(llms: Sequence[Any], changes: Mapping[str, Any]) -> list[Any]:
    """The list of LLMs with `changes` by their place in it: `--set llm.0.noise=0.3` is {"0": {"noise": 0.3}}."""
    places = [str(place) for place in range(len(llms))]
    for key, change in changes.items():
        if key not in places or not isinstance(change, dict):
            raise ConfigError(
                f"--set llm.{key}: `llm` is a list here; name one of its members, as in  "
                f"--set llm.0.{'model' if key.isdigit() else key}=…  "
                f"(the last one is llm.{places[-1]})"
            )
    return [
        _merge({"llm": llm}, {"llm": changes[place]})["llm"] if place in changes else llm
        for place, llm in zip(places, llms, strict=True)
    ]


def _another_kind(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    field = Config.model_fields.get(section)
    chosen_by_kind = field is not None and field.discriminator is not None
    return chosen_by_kind and new.get("kind", old.get("kind")) != old.get("kind")


def _kinds() -> dict[str, Any]:
    """The default `kind` of every section that has one: a layer need not repeat it."""
    kinds = {name: getattr(field.default, "kind", None) for name, field in Config.model_fields.items()}
    return {name: {"kind": kind} for name, kind in kinds.items() if kind is not None}


def chosen_by_kind() -> dict[str, tuple[str, ...]]:
    """Section -> the kinds among which its `kind` chooses; pydantic has them in the location of a fault, too."""
    unions = {name: field for name, field in Config.model_fields.items() if field.discriminator is not None}
    return {
        name: tuple(member.model_fields["kind"].default for member in get_args(field.annotation))
        for name, field in unions.items()
    }


def _fault(fault: Any, settings: Mapping[str, Any]) -> str:
    place = [str(part) for part in fault["loc"]]
    kinds = {kind for kinds in chosen_by_kind().values() for kind in kinds}
    written = [part for i, part in enumerate(place) if not (i in (1, 2) and part in kinds)]
    name = ".".join(_as_a_list(written, settings)) or "(whole file)"
    if fault["type"] == "extra_forbidden":
        return f"{name}: {_unknown(place, written)}"
    if fault["type"] == "missing":
        return f"{name}: is needed"
    shown = "" if isinstance(fault.get("input"), dict) else f" (found {fault.get('input')!r})"
    return f"{name}: {fault['msg'][:1].lower()}{fault['msg'][1:]}{shown}"


def _as_a_list(place: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """`place` as it is written where `llm` is a list, of which the later ones are the panel."""
    if not isinstance(settings.get("llm"), list) or place[:1] not in (["llm"], ["panel"]):
        return list(place)
    if place[0] == "llm":
        return ["llm", "0", *place[1:]]
    return ["llm", *(str(int(part) + 1) if part.isdigit() else part for part in place[1:2]), *place[2:]]


def _unknown(place: Sequence[str], written: Sequence[str]) -> str:
    """What to say of an unknown key at `place`, a pydantic location, with the one that is meant."""
    key, section = place[-1], "llm" if place[0] == "panel" else place[0]
    kinds = chosen_by_kind().get(section, ())
    having = [kind for kind in kinds if key in _fields_at((section, kind))]
    if having and len(written) <= 2 + (place[0] == "panel"):
        option = f" (--{key.replace('_', '-')})" if key in ("price_in", "price_out", "require") else ""
        return f"is for {section}.kind {' or '.join(having)}{option}"
    if len(place) > 1:
        return f"unknown key{did_you_mean(key, _fields_at(place[:-1]))}"
    sections = [name for name in Config.model_fields if key in _settings_in(name)]
    if sections:
        return f"unknown key; did you mean {' or '.join(repr(f'{name}.{key}') for name in sections)}?"
    return f"unknown key{did_you_mean(key, _fields_at(()))}"


def _settings_in(section: str) -> set[str]:
    """Names of the settings in a section, of whichever kind it is."""
    kinds = chosen_by_kind().get(section)
    places = [(section, kind) for kind in kinds] if kinds else [(section,)]
    return {name for place in places for name in _fields_at(place)}


def _fields_at(place: Sequence[str]) -> list[str]:
    """Names of the settings in the section at `place`, a pydantic location."""
    model: Any = Config
    for part in place:
        if part.isdigit():  # a member of the panel
            model = Config.model_fields["llm"].annotation
        elif isinstance(model, type) and issubclass(model, Section) and part in model.model_fields:
            model = model.model_fields[part].annotation
        else:  # the name of a kind: the member of the union whose `kind` has it as its default
            model = next((m for m in get_args(model) if m.model_fields["kind"].default == part), model)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, Section) else []


SectionT = TypeVar("SectionT", bound=Section)


def _update(section: SectionT, changes: Mapping[str, Any]) -> SectionT:
    return section.model_copy(update=dict(changes))


def _absolute(config: Config, folder: Path, known: Collection[str] = ()) -> Config:
    """Every path expanded and taken from `folder`; a name that is no existing path (a hub name) stays as it is.

    What is `known` stays, too.
    """

    def place(value: str | None) -> str | None:
        return value if value in known else _place(value, folder)

    data = _update(config.data, {key: place(getattr(config.data, key)) for key in ("pool", "test")})
    changes: dict[str, Any] = {"data": data, "prompt": place(config.prompt)}
    changes["paraphrases"] = tuple(place(each) for each in config.paraphrases)
    changes |= {"llm": _llm_at(config.llm, place), "panel": tuple(_llm_at(each, place) for each in config.panel)}
    for key in ("student", "embedder"):
        section = getattr(config, key)
        if isinstance(section, (TransformerConfig, TaggerConfig, EncoderConfig, StatesConfig)):
            changes[key] = _update(section, {"model": place(section.model)})
    return _update(config, changes)


def _llm_at(llm: LLMConfig, place: Callable[[str | None], str | None]) -> LLMConfig:
    if isinstance(llm, RecordedConfig):
        return _update(llm, {"replies": place(llm.replies)})
    if isinstance(llm, (LocalConfig, VLLMConfig)):
        return _update(llm, {"model": place(llm.model)})
    return llm


def _place(value: str | None, folder: Path) -> str | None:
    if value is None:
        return None
    told = _expand(value)
    try:
        place = Path(told).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{value!r}: the home directory it begins with is not known; write the whole path") from error
    if place.is_absolute():
        return str(place)
    beside = (folder / place).resolve()
    looks_like_a_path = told.startswith((".", "~")) or place.suffix in _SUFFIXES
    return str(beside) if beside.exists() or looks_like_a_path else told


_SUFFIXES = {".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".md", ".gguf", ".gz"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def _expand(value: str) -> str:
    """`value` with its variables; one that begins it and names what exists is relative to where the user stands."""

    def replace(match: re.Match[str]) -> str:
        name, fallback = match.groups()
        found = os.environ.get(name)
        if found is None:
            if fallback is None:
                raise ConfigError(f"{value!r}: the environment variable {name} is not set")
            return str(fallback)
        begins = match.start() == 0 and value[match.end() :][:1] in ("", "/", os.sep)
        return str(Path(found).resolve()) if begins and Path(found).exists() else found

    return _VARIABLE.sub(replace, value)
