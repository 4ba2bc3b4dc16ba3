import numpy as np
import pytest

from freeal.errors import ModelError
from freeal.student.embedders import EncoderEmbedder, RememberingEmbedder, TfidfEmbedder

TEXTS = ["a fine film", "a very very dull and boring movie", "", "fine", "!!"]


@pytest.fixture(scope="module", params=["encoder", "tfidf"])
def embedder(request, tiny_encoder):
    return EncoderEmbedder(str(tiny_encoder), "cpu") if request.param == "encoder" else TfidfEmbedder(64)


def test_vectors_are_float32_and_of_length_one(embedder):
    vectors = embedder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, embedder.description["dimensions"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_no_texts_give_no_vectors_of_the_right_width(embedder):
    assert embedder.encode([]).shape == (0, embedder.description["dimensions"])


def test_a_vector_does_not_depend_on_the_texts_beside_it(embedder):
    together = embedder.encode(TEXTS)
    alone = np.concatenate([embedder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_texts_that_share_words_are_nearer():
    film, films, storm = TfidfEmbedder().encode(["a charming film", "charming films", "heavy rain tomorrow"])
    assert film @ films > film @ storm + 0.2


def test_a_missing_encoder_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        EncoderEmbedder(str(tmp_path / "nowhere"))


def test_a_remembered_text_is_read_once_and_its_vector_is_the_same():
    asked = []

    class Listening(TfidfEmbedder):
        def encode(self, texts):
            asked.extend(texts)
            return super().encode(texts)

    remembering = RememberingEmbedder(Listening(16), most=2)
    first = remembering.encode(["a film", "a plot", "a film", "a song"])
    again = remembering.encode(["a song", "a film"])
    np.testing.assert_array_equal(again, first[[3, 0]])
    assert asked == ["a film", "a plot", "a song", "a song"]
    assert remembering.encode([]).shape == (0, 16)
