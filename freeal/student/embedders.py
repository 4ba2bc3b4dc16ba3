"""Texts to vectors, without learning: for retrieval, and beneath the linear student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor
from transformers import AutoModel

from freeal.processor import pick_device
from freeal.student.encoders import (
    longest_input,
    mean_of_tokens,
    open_model,
    open_tokenizer,
    pad,
    padding,
    reading_batches,
    reading_budget,
    tokenise,
)
from freeal.types import FloatArray

Description = Mapping[str, str | int]

MAX_TOKENS = 256
"""Texts are cut after so many by an encoder; sentence encoders are trained on 128 to 256."""


class Embedder(Protocol):
    """Turns texts into vectors in which near means alike."""

    @property
    def description(self) -> Description:
        """What it is, for a file: `kind`, `dimensions` and, if it has one, `model`."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 of length one each; n may be zero."""


class EncoderEmbedder:
    """A frozen encoder, the mean over its tokens (Reimers & Gurevych, Sentence-BERT, EMNLP 2019).

    Args:
        model_path: folder or hub name of any model that AutoModel opens.
        device: auto, cpu, cuda, cuda:1, mps.

    Raises:
        ModelError: there is no such model.
    """

    def __init__(self, model_path: str, device: str = "auto") -> None:
        self.model_path = model_path
        self.device = torch.device(pick_device(device))
        self.tokenizer = open_tokenizer(model_path)
        self.model = open_model(AutoModel.from_pretrained, model_path).to(self.device).eval()
        self.max_tokens = longest_input(self.tokenizer, self.model.config, MAX_TOKENS)

    @property
    def description(self) -> Description:
        return {"kind": "encoder", "model": self.model_path, "dimensions": int(self.model.config.hidden_size)}

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32 of length one each; batches hold texts of like length."""
        vectors = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        tokens = tokenise(self.tokenizer, texts, self.max_tokens)
        lengths = np.array([len(row) for row in tokens], np.int64)
        for rows in reading_batches(lengths, reading_budget(self.device)):
            batch = pad([tokens[row] for row in rows], padding(self.tokenizer), self.device)
            vectors[rows] = self._read(batch).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def _read(self, batch: dict[str, Tensor]) -> Tensor:
        hidden = self.model(**batch).last_hidden_state
        return mean_of_tokens(hidden, batch["attention_mask"])


class TfidfEmbedder:
    """Words and pieces of words, hashed and projected at random: no model, no fitting, the same everywhere.

    Being stateless there are no document frequencies in it: a text's vector does not depend on the
    other texts. The projection keeps cosines up to about 1/sqrt(dimensions)
    (Achlioptas, Database-friendly random projections, JCSS 2003).

    Args:
        dimensions: length of the vectors.

    Example:
        >>> TfidfEmbedder(64).encode(["a fine film", "fine films"]).shape
        (2, 64)
    """

    BUCKETS = 2**14

    def __init__(self, dimensions: int = 256) -> None:
        self.dimensions = dimensions
        # no alternating signs: the projection already makes collisions cancel on average
        shared = {"n_features": self.BUCKETS, "alternate_sign": False, "norm": "l2"}
        self.words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **shared)
        self.pieces = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **shared)
        signs = np.random.default_rng(0).integers(0, 2, (2 * self.BUCKETS, dimensions), np.int8)
        self.projection: FloatArray = (2 * signs - 1).astype(np.float32)

    @property
    def description(self) -> Description:
        return {"kind": "tfidf", "dimensions": self.dimensions}

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, dimensions) float32 of length one each; a text without any word gets a fixed direction."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        counts = csr_matrix(hstack([self.words.transform(texts), self.pieces.transform(texts)]))
        vectors = np.asarray(counts @ self.projection, np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        fixed = np.full(self.dimensions, self.dimensions**-0.5, np.float32)
        return np.where(norms > 0, vectors / np.where(norms > 0, norms, 1.0), fixed).astype(np.float32)


class RememberingEmbedder:
    """Another embedder, asked once for each text: a pool is read in every round, by the student and for retrieval.

    Args:
        embedder: who reads.
        most: texts remembered (200,000 of 384 dimensions take 300 MB); later ones are read each time.
    """

    def __init__(self, embedder: Embedder, most: int = 200_000) -> None:
        self.embedder = embedder
        self.most = most
        self._known: dict[str, FloatArray] = {}

    @property
    def description(self) -> Description:
        return self.embedder.description

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) float32, as the other gives them."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        found = dict(zip(new, self.embedder.encode(new), strict=True)) if new else {}
        room = self.most - len(self._known)
        self._known.update((text, found[text]) for text in new[: max(0, room)])
        if not texts:
            return self.embedder.encode([])
        return np.stack([self._known[text] if text in self._known else found[text] for text in texts])
