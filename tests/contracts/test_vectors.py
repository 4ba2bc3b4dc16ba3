"""What every embedder keeps to, whatever its vectors are made from."""

from pathlib import Path

import numpy as np
import pytest

from freeal import prompts
from freeal.config import LocalConfig
from freeal.llm.states import StatesEmbedder
from freeal.student.embedders import EncoderEmbedder, RememberingEmbedder, TfidfEmbedder

TEXTS = ["a fine film", "a very very dull and boring movie", "", "fine", "!!"]
PROMPT = Path(__file__).parents[2] / "prompts" / "mr.md"


@pytest.fixture(scope="module", params=["encoder", "tfidf", "hidden_states", "remembering"])
def embedder(request, tiny_encoder, tiny_chat):
    if request.param == "hidden_states":
        return StatesEmbedder(
            LocalConfig(model=str(tiny_chat), device="cpu", dtype="float32"), prompts.load(PROMPT), 0.5
        )
    if request.param == "remembering":
        return RememberingEmbedder(TfidfEmbedder(32), most=2)
    return EncoderEmbedder(str(tiny_encoder), "cpu") if request.param == "encoder" else TfidfEmbedder(64)


def test_vectors_are_float32_and_of_length_one(embedder):
    vectors = embedder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.description["dimensions"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_no_texts_give_no_vectors_of_the_right_width(embedder):
    assert embedder.encode([]).shape == (0, embedder.description["dimensions"])


def test_a_vector_does_not_depend_on_the_texts_beside_it(embedder):
    together = embedder.encode(TEXTS)
    alone = np.concatenate([embedder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_same_text_has_the_same_vector(embedder):
    first, second, third = embedder.encode([TEXTS[0], TEXTS[1], TEXTS[0]])
    np.testing.assert_allclose(first, third, atol=1e-5)
    assert not np.allclose(first, second, atol=1e-3)


def test_what_it_is_can_be_written_to_a_file(embedder):
    assert embedder.description["kind"] in {"encoder", "tfidf", "hidden_states"}
    assert all(isinstance(value, (str, int)) for value in embedder.description.values())
