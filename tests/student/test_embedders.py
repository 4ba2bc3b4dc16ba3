import numpy as np
import pytest

from freeal.errors import ModelError
from freeal.student.embedders import EncoderEmbedder, RememberingEmbedder, TfidfEmbedder


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
