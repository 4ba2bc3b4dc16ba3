"""Configuration -> students, their judges and their vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from freeal import models
from freeal.config import (
    Config,
    EncoderConfig,
    LinearConfig,
    NoStudentConfig,
    StatesConfig,
    TaggerConfig,
    TfidfConfig,
    TransformerConfig,
)
from freeal.errors import ConfigError
from freeal.events import Emit
from freeal.ledger import Ledger
from freeal.parts import llms
from freeal.prompts import Prompt
from freeal.student import Student
from freeal.tasks import Task
from freeal.tasks.spans import split_words

if TYPE_CHECKING:
    from freeal.student.embedders import Embedder


STATES_IN_MEMORY = 50_000
"""Texts whose hidden states are remembered (of 1,536 numbers, 300 MB); those of others are looked up again."""


def new_student(config: Config, task: Task, vectors: Callable[[], Embedder], emit: Emit, number: int) -> Student:
    """Who learns in round `number`: a fresh one each round."""
    labels = tuple(task.labels)
    seed = int(np.random.default_rng([config.seed, 2, number]).integers(2**31))
    match config.student:
        case TransformerConfig() as transformer:
            from freeal.student.transformer import TransformerStudent

            path, several = str(models.locate(transformer.model, emit)), task.kind == "multilabel"
            make = partial(TransformerStudent, model_path=path, emit=emit, several=several)
            student: Student = make(transformer, labels, seed)
            if transformer.judge == "none":
                return student
            from freeal.student.judged import JudgedStudent

            judge = _judge(transformer, task, seed, vectors, make)
            return JudgedStudent(student, judge, transformer.objective == "coteaching")
        case LinearConfig() as linear:
            return _linear_student(linear, task, seed, vectors)
        case TaggerConfig() as tagger:
            from freeal.student.tagger import TaggerStudent

            return TaggerStudent(tagger, labels, seed, str(models.locate(tagger.model, emit)), split_words, emit)
        case NoStudentConfig():
            from freeal.student.uniform import UniformStudent

            return UniformStudent(task.shape)


def _judge(
    config: TransformerConfig, task: Task, seed: int, vectors: Callable[[], Embedder], make: Callable[..., Student]
) -> Student:
    """Who judges the rows of a fine-tuned student."""
    if config.judge == "linear":
        return _linear_student(LinearConfig(), task, seed, vectors)
    from freeal.student.crossfitted import CrossFitted

    plain = config.model_copy(update={"objective": "plain"} if config.objective == "coteaching" else {})

    def new(fold: int) -> Student:
        work = f"training without fold {fold + 1} of {config.folds}"
        return make(plain, tuple(task.labels), seed + 1 + fold, work=work)

    return CrossFitted(new, config.folds, seed, task.shape(()))


def _linear_student(config: LinearConfig, task: Task, seed: int, vectors: Callable[[], Embedder]) -> Student:
    from freeal.student import each_label
    from freeal.student.linear import LinearStudent

    labels = tuple(task.labels)
    if task.kind == "multilabel":
        own = config.model_copy(update={"c": config.c or each_label.C})
        return each_label.EachLabelStudent(labels, lambda: LinearStudent(own, each_label.NAMES, seed, vectors()))
    return LinearStudent(config, labels, seed, vectors())


def load_student(config: Config, prompt: Prompt, folder: Path, emit: Emit) -> Student:
    """The student that a round kept in `folder`."""
    match config.student:
        case TransformerConfig():
            from freeal.student import transformer

            return transformer.load(folder)
        case LinearConfig():
            from freeal.student import each_label, linear

            load = each_label.load if prompt.task.kind == "multilabel" else linear.load
            return load(folder, embedder(config, prompt, emit))
        case TaggerConfig():
            from freeal.student import tagger

            return tagger.load(folder, split_words, emit)
        case NoStudentConfig():
            raise ConfigError("this run trained no student (student.kind is none)")


def embedder(config: Config, prompt: Prompt, emit: Emit, ledger: Ledger | None = None) -> Embedder:
    """Who turns texts into vectors; `prompt` is what a language model is asked about them, its answers in `ledger`."""
    from freeal.student.embedders import EncoderEmbedder, RememberingEmbedder, TfidfEmbedder

    match config.embedder:
        case EncoderConfig() as encoder:
            return RememberingEmbedder(EncoderEmbedder(str(models.locate(encoder.model, emit))))
        case TfidfConfig() as tfidf:
            return TfidfEmbedder(tfidf.dimensions)
        case StatesConfig() as states:
            from freeal.llm.states import StatesEmbedder

            made = StatesEmbedder(llms.states_of(config, states), prompt, states.depth, emit, ledger)
            return RememberingEmbedder(made, most=STATES_IN_MEMORY)
