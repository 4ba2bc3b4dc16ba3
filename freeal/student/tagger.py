"""A small encoder fine-tuned to label words: each row has s decisions instead of one.

Arrays are as in `tasks/tags.py`: (rows, s, k), s words of the longest text, k = 2·types+1 classes. Losses and
distributions of the rows it learned from can be had out of fold, as a fine-tuned encoder repeats what it was taught.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForTokenClassification

from freeal.config import TaggerConfig
from freeal.errors import DataError, ModelError
from freeal.events import Emit, Note, ignore
from freeal.models import quiet
from freeal.processor import bfloat16_is_faster, pick_device
from freeal.select.tags import believed_words, clean_words, loss_of_texts
from freeal.student import Keep
from freeal.student.augment import hide
from freeal.student.capitals import marked, marks_for
from freeal.student.encoders import (
    Tokens,
    longest_input,
    mean_of_tokens,
    open_model,
    open_tokenizer,
    pad,
    padding,
)
from freeal.student.finetuning import (
    Head,
    NotFiniteError,
    Pace,
    Training,
    begin,
    open_classifier,
    own_randomness,
    readings,
    run_epoch,
    set_seed,
    twice_at_most,
)
from freeal.student.lessons import Lesson, look_over, losses_under, spread
from freeal.student.objectives import JointReading, evenly, freeal_loss, ramp, robust_tagging_loss, tagging_loss
from freeal.tasks.spans import tag_vocabulary
from freeal.tasks.tokens import MOST_WORDS
from freeal.types import PROBABILITY, BoolArray, FloatArray, Inputs, IntArray, StudentView

Words = Callable[[str], Sequence[tuple[int, int]]]
"""Words of a text: character offsets, rising, the end exclusive."""

_NEARLY = np.nextafter(PROBABILITY(1), PROBABILITY(0))
"""The most that is said of a word that is read: of the others O is certain."""

Watch = Callable[[int, Any], BoolArray | None]
"""Told the number of each epoch and the model after it; says which words (m, s) the next one believes, or all."""


class TaggerStudent:
    """Any encoder that AutoModelForTokenClassification opens; the first piece of a word speaks for it.

    The same seed and the same inputs give the same bytes on the same machine, whatever ran before in
    the process, and the process' own random state is left as it was.

    Args:
        config: how to learn; its `model` is only a name, the weights come from `model_path`.
        labels: names of the types of entity; the k classes are O, and B and I of each.
        seed: of the new last layer, the folds, the order of the rows and dropout.
        model_path: folder or hub name of the encoder; every training starts from it afresh.
        words: what the words of a text are.
        emit: listener for progress and notes.

    Raises:
        ModelError: there is no model at `model_path`, or its tokenizer does not tell where its tokens are.
    """

    losses_: FloatArray
    """With folds (1, m), each row's by a training that did not see it; without (epochs, m), after each epoch. Each is
    the mean of a text's entity words and that of its other words, half and half (`select.tags.loss_of_texts`)."""

    out_of_fold_: FloatArray | None
    """(m, s, k) with folds, None without."""

    def __init__(
        self,
        config: TaggerConfig,
        labels: Sequence[str],
        seed: int,
        model_path: str,
        words: Words,
        emit: Emit = ignore,
    ) -> None:
        self.config = config
        self.labels = tuple(labels)
        self.classes = tag_vocabulary(labels)
        self.seed = seed
        self.model_path = model_path
        self.words = words
        self.emit = emit
        self.device = torch.device(pick_device(config.device))
        self.tokenizer = open_tokenizer(model_path)
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"{model_path}: its tokenizer does not tell where its tokens are; take one with a fast one"
            )
        encoder = open_model(AutoConfig.from_pretrained, model_path)
        self.max_tokens = longest_input(self.tokenizer, encoder, config.max_tokens)
        self.marks = marks_for(self.tokenizer) if config.capitals else ()
        self.max_marked = longest_input(self.tokenizer, encoder, 2 * config.max_tokens)
        self.losses_ = np.zeros((0, 0), PROBABILITY)
        self.out_of_fold_ = None
        self._model: Any = None

    def fit(
        self, inputs: Inputs, targets: FloatArray, weights: FloatArray | None = None, keep: Keep | None = None
    ) -> Self:
        """Learn the distributions `targets` (m, s, k); `weights` (m,) default to one.

        What is kept has learned from all rows. With `folds` as many trainings on the other folds come before it; with
        the objective `robust` each word teaches by P(clean) of its loss in them, the words of an entity by that of
        their mean, and for the rest two readings of it are to be alike. With the objective `freeal`, `keep` is asked
        after each epoch, from the end of the warm-up on, which words are clean by their losses.

        Raises:
            DataError: no rows, no words, or targets that are no distributions.
            TrainingError: the loss was not finite, and again with half the learning rate.
        """
        lesson = look_over(inputs, targets, weights, len(self.classes), slots=True)
        texts = self._texts(inputs.texts, lesson.targets.shape[1])
        if not texts.read.any():
            raise DataError("no word to train on: the texts are empty, or the targets have no slots")
        with own_randomness(self.device):
            if self.config.folds < 2:
                self._fit_watched(lesson, texts, keep)
            else:
                self._fit_crossed(lesson, texts)
        return self

    def view(self, inputs: Inputs, slots: int | None = None) -> StudentView:
        """`proba` (n, s, k) and `embeddings` (n, d), float32: the mean over the tokens, of length one.

        Words that the encoder does not read, and slots without a word, are a certain O.

        Args:
            slots: s; by default as many as the longest of these texts has words, MOST_WORDS at most.
        """
        return self._view(self._fitted(), self._texts(inputs.texts, slots))

    def save(self, folder: Path) -> None:
        """Write a checkpoint in safetensors that transformers opens without freeal, and `student.json`.

        Texts are then read without the marks of capitals (`student.capitals`) that it learned with.
        """
        model = self._fitted()
        with quiet():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        card = {
            "kind": "tagger",
            "labels": self.labels,
            "classes": self.classes,
            "max_tokens": self.max_tokens,
            "marks": self.marks,
        }
        (folder / "student.json").write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def _fit_watched(self, lesson: Lesson, texts: _Texts, keep: Keep | None) -> None:
        """One training on all rows; their losses after each epoch are its own."""
        losses: list[FloatArray] = []
        warmed_up = max(self.config.warmup_epochs, 1)

        def watch(epoch: int, model: Any) -> BoolArray | None:
            del losses[epoch:]  # of an attempt that ran away
            judged = losses_under(lesson.given, self._view(model, texts).proba), lesson.given > 0, texts.read
            losses.append(loss_of_texts(*judged))
            if keep is None or self.config.objective != "freeal" or epoch + 1 < warmed_up:
                return None
            return believed_words(*judged, keep)

        self._model = self._learned(lesson, texts, np.arange(len(lesson)), "training", watch)
        self.losses_, self.out_of_fold_ = np.stack(losses), None

    def _fit_crossed(self, lesson: Lesson, texts: _Texts) -> None:
        """A training on the other folds for each fold, and one on all rows, which is kept."""
        unseen = self._out_of_fold(lesson, texts)
        of_words = losses_under(lesson.given, unseen)
        robust = self.config.objective == "robust"
        trust = clean_words(of_words, lesson.given, texts.read) if robust else None
        self._model = self._learned(lesson, texts, np.arange(len(lesson)), "training", trust=trust)
        self.losses_, self.out_of_fold_ = loss_of_texts(of_words, lesson.given > 0, texts.read)[None, :], unseen

    def _out_of_fold(self, lesson: Lesson, texts: _Texts) -> FloatArray:
        """(m, s, k) of models that have not seen the row; even for a single row, as nothing else was seen."""
        proba = _certain(texts.at, len(self.classes))
        proba[texts.read] = 1.0 / len(self.classes)
        has_entity = np.asarray((lesson.given > 0).any(axis=1), np.int64)
        fold_of = spread(has_entity, lesson.inputs.texts, self.config.folds, self.seed)
        folds = int(fold_of.max()) + 1
        for fold in range(folds if folds > 1 else 0):
            rest, held = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            work = f"training without fold {fold + 1} of {folds}"
            model = self._learned(lesson, texts, rest, work)
            proba[held] = self._view(model, texts.take(held)).proba
        return proba

    def _learned(
        self,
        lesson: Lesson,
        texts: _Texts,
        rows: IntArray,
        work: str,
        watch: Watch = lambda epoch, model: None,
        trust: FloatArray | None = None,
    ) -> Any:
        """A model that has learned `rows` (r,) of the lesson; `trust` (m, s) in each of its words, None for full."""
        part = texts.take(rows)
        taught, counted = (
            torch.from_numpy(given[rows]).to(self.device) for given in (lesson.targets, _every_word(lesson))
        )
        trusted = None if trust is None else torch.from_numpy(trust[rows]).to(self.device)
        attempt = partial(self._train, part, taught, counted, trusted, work, watch)
        return twice_at_most(attempt, self.config, self.model_path, self.device, self.emit)

    def _train(
        self,
        texts: _Texts,
        targets: Tensor,
        weights: Tensor,
        trust: Tensor | None,
        work: str,
        watch: Watch,
        pace: Pace,
    ) -> Any:
        set_seed(self.seed, self.device)
        loader = AutoModelForTokenClassification.from_pretrained
        model = open_classifier(loader, self.model_path, self.classes).to(self.device)
        training = begin(self.config, model, texts.tokens, self.seed, pace)
        attempt = _Attempt(training, texts, targets, weights, trust, Head(model, len(self.classes), self.model_path))
        judged = self._plain if trust is None else self._robust
        loss = partial(self._freeal if self.config.objective == "freeal" else judged, attempt)
        for epoch in range(training.epochs):
            if self.config.objective == "freeal":
                attempt.second = self._second_wordings(training)
            run_epoch(training, loss, self.config, self.emit, work)
            if not all(torch.isfinite(weight).all() for weight in model.parameters()):
                raise NotFiniteError(f"the weights after epoch {epoch + 1}")
            attempt.believed = watch(epoch, model)
        return model

    def _plain(self, attempt: _Attempt, rows: IntArray) -> Tensor:
        tokens = [attempt.texts.tokens[row] for row in rows]
        logits = self._forward(attempt.training.model, tokens, attempt.training.autocast).logits
        found, slots, places = attempt.texts.words_of(rows)
        of_words = rows[found], slots
        return tagging_loss(logits[found, places], attempt.targets[of_words], attempt.weights[of_words])

    def _robust(self, attempt: _Attempt, rows: IntArray) -> Tensor:
        """Each text twice in one forward pass: dropout reads it twice."""
        assert attempt.trust is not None
        training, b = attempt.training, len(rows)
        tokens = [attempt.texts.tokens[row] for row in rows]
        logits = self._forward(training.model, tokens * 2, training.autocast).logits
        found, slots, places = attempt.texts.words_of(rows)
        of_words = rows[found], slots
        return robust_tagging_loss(
            logits[found, places],
            logits[found + b, places],
            attempt.targets[of_words],
            attempt.weights[of_words],
            attempt.trust[of_words],
            extra=self._extra(training),
            temperature=self.config.temperature,
        )

    def _extra(self, training: Training) -> float:
        return ramp(training.step / training.batches, self.config.ramp_epochs)

    def _freeal(self, attempt: _Attempt, rows: IntArray) -> Tensor:
        """Both wordings in one forward pass of 2b texts; what FreeAL does with texts is done with their words."""
        training, b = attempt.training, len(rows)
        wordings = [attempt.texts.tokens[row] for row in rows] + [attempt.second[row] for row in rows]
        logits = self._forward(training.model, wordings, training.autocast).logits
        features = attempt.head.features()
        if features is None:
            raise ModelError(f"{self.model_path}: the last layer reads no words; take a plain encoder")
        found, slots, places = attempt.texts.words_of(rows)
        of_words = rows[found], slots
        taught = attempt.targets[of_words]
        clean = np.ones(len(found), bool) if attempt.believed is None else attempt.believed[of_words]
        return freeal_loss(
            JointReading(features.float()[found, places], logits[found, places], logits[found + b, places]),
            taught,
            attempt.weights[of_words] * evenly(taught),
            torch.from_numpy(clean).to(self.device),
            head=attempt.head.layer,
            extra=self._extra(training),
            alpha=self.config.mixup_alpha,
            temperature=self.config.temperature,
            generator=training.generator,
        )

    def _second_wordings(self, training: Training) -> list[Tokens]:
        """The texts with other tokens hidden in every epoch."""
        marks = (self.tokenizer.mask_token_id, self.tokenizer.unk_token_id, padding(self.tokenizer))
        mask = next(mark for mark in marks if mark is not None)
        spared = frozenset(self.tokenizer.all_special_ids)
        return [hide(tokens, mask, spared, training.rng, self.config.hidden) for tokens in training.tokens]

    def _view(self, model: Any, texts: _Texts) -> StudentView:
        proba = _certain(texts.at, len(self.classes))
        embeddings = np.zeros((len(texts), model.config.hidden_size), np.float32)
        forward = partial(self._forward, model, autocast=bfloat16_is_faster(self.device.type))
        for rows, read in readings(model, forward, texts.tokens, self.device):
            found, slots, places = texts.words_of(rows)
            of_words = torch.softmax(read.logits[found, places], dim=-1).cpu().numpy()
            proba[rows[found], slots] = np.minimum(of_words, _NEARLY)
            embeddings[rows] = read.embeddings.cpu().numpy()
        return StudentView(proba, embeddings)

    def _forward(self, model: Any, tokens: Sequence[Tokens], autocast: bool) -> _Reading:
        batch = pad(tokens, padding(self.tokenizer), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            read = model(**batch, output_hidden_states=True)
        return _Reading(read.logits.float(), mean_of_tokens(read.hidden_states[-1].float(), batch["attention_mask"]))

    def _texts(self, texts: Sequence[str], slots: int | None) -> _Texts:
        """The texts as tokens, and where in them their words begin; how many words are not read is said."""
        words = [self.words(text) for text in texts]
        longest = max(map(len, words), default=0)
        s = min(longest, MOST_WORDS) if slots is None else slots
        at = np.full((len(texts), s), -1, np.int64)
        tokens: list[Tokens] = []
        if texts:
            found = self.tokenizer(
                list(texts), truncation=True, max_length=self.max_tokens, return_offsets_mapping=True
            )
            tokens = [ids or [padding(self.tokenizer)] for ids in found["input_ids"]]
            for row, (spans, offsets) in enumerate(zip(words, found["offset_mapping"], strict=True)):
                at[row, : len(spans)] = first_pieces(spans, offsets)[:s]
                if self.marks:
                    read = [texts[row][start:end] for start, end in spans[:s]]
                    tokens[row], at[row] = marked(tokens[row], at[row], read, self.marks, self.max_marked)
        total = sum(map(len, words))
        if unread := total - int((at >= 0).sum()):
            self.emit(
                Note(
                    f"{unread} of {total} words are not read, and without a word of the LLM count as O: they "
                    f"lie behind {self.max_tokens} tokens (student.max_tokens) or {s} words",
                    "student",
                )
            )
        return _Texts(tokens, at)

    def _fitted(self) -> Any:
        if self._model is None:
            raise ModelError("this student has learned nothing yet: call fit, or open a saved one with load")
        return self._model


def load(folder: Path, words: Words, emit: Emit = ignore) -> TaggerStudent:
    """The student that `save` wrote, for `view`, with the `words` it was trained with; its `losses_` are not kept.

    Raises:
        ModelError: there is no such student in `folder`.
    """
    try:
        card = json.loads((folder / "student.json").read_text(encoding="utf-8"))
        labels = [str(label) for label in card["labels"]]
        config = TaggerConfig(model=str(folder), max_tokens=card["max_tokens"])
        marks = tuple(int(mark) for mark in card.get("marks", ()))  # before there were any, none
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: no tagger that can be read: {error}") from error
    student = TaggerStudent(config, labels, 0, str(folder), words, emit)
    student.marks = marks
    model = open_model(AutoModelForTokenClassification.from_pretrained, str(folder), use_safetensors=True)
    student._model = model.to(student.device)
    return student


def first_pieces(spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> IntArray:
    """(w,) number of the first token that shares a character with each word, -1 where there is none.

    Args:
        spans: (w, 2) of the words, in characters, the end exclusive.
        offsets: (l, 2) of the tokens; those that stand for no character are empty.

    Example:
        >>> first_pieces([(0, 2), (3, 9), (10, 12)], [(0, 0), (0, 2), (3, 5), (5, 9), (0, 0)])
        array([ 1,  2, -1])
    """
    begin, end = np.array(spans, np.int64).reshape(-1, 2).T
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    told = np.flatnonzero(ends > starts)
    if not len(told):
        return np.full(len(begin), -1, np.int64)
    first = np.searchsorted(ends[told], begin, side="right")
    place = told[np.minimum(first, len(told) - 1)]
    return np.where((first < len(told)) & (starts[place] < end), place, -1)


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts as the encoder reads them: `tokens` of each, and `at` (n, s) the token that speaks for each word or -1."""

    tokens: list[Tokens]
    at: IntArray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def read(self) -> BoolArray:
        """(n, s) words that the encoder reads."""
        return self.at >= 0

    def take(self, rows: IntArray) -> _Texts:
        return _Texts([self.tokens[row] for row in rows], self.at[rows])

    def words_of(self, rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Of each word read in `rows` (b,), (w,) each: the place of its row among them, its slot and its token."""
        found, slots = np.nonzero(self.read[rows])
        return found, slots, self.at[rows][found, slots]


@dataclass(slots=True)
class _Attempt:
    """A training: the texts it reads, what it learns, and of the objective `freeal` what changes with every epoch."""

    training: Training
    texts: _Texts
    targets: Tensor
    """(r, s, k)"""
    weights: Tensor
    """(r, s)"""
    trust: Tensor | None
    """(r, s) P(tag is right) for the objective `robust`; None where all are trusted."""
    head: Head
    second: Sequence[Tokens] = ()
    """Second wordings of the texts, word for word."""
    believed: BoolArray | None = None
    """(r, s) words whose tags are believed; None for all."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """`logits` (b, longest, k) of the tokens and `embeddings` (b, d) of the texts, float32."""

    logits: Tensor
    embeddings: Tensor


def _every_word(lesson: Lesson) -> FloatArray:
    """(m, s) the weight of its row for each word."""
    of_rows = lesson.weights if lesson.weights.ndim > 1 else lesson.weights[:, None]
    return np.broadcast_to(of_rows, lesson.given.shape)


def _certain(at: IntArray, k: int) -> FloatArray:
    """(n, s, k) O throughout, for words `at` (n, s)."""
    proba = np.zeros((*at.shape, k), PROBABILITY)
    proba[..., 0] = 1.0
    return proba
