import numpy as np
import pytest
import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from freeal.errors import ModelError
from freeal.models import quiet
from freeal.student.encoders import (
    open_model,
    open_tokenizer,
    pad,
    reading_batches,
    tokenise,
    training_batches,
)


def padding_share(batches, lengths):
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    return 1 - lengths.sum() / padded


def test_training_batches_hold_every_row_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(5, 60, 1000)
    batches = training_batches(lengths, 32, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert padding_share(batches, lengths) < 0.25


def test_training_batches_come_in_another_order_each_epoch():
    rng, lengths = np.random.default_rng(0), np.full(10, 7)
    assert not np.array_equal(training_batches(lengths, 5, rng)[0], training_batches(lengths, 5, rng)[0])


def test_few_rows_meet_others_in_each_epoch():
    rng, lengths = np.random.default_rng(0), np.arange(100) // 4
    first, second = (training_batches(lengths, 10, rng) for _ in range(2))
    assert {frozenset(rows) for rows in first}.isdisjoint({frozenset(rows) for rows in second})


@pytest.mark.parametrize("lengths", [[], [3], [500], [1, 2, 3, 50, 2, 1]])
def test_reading_batches_hold_every_row_once_and_keep_to_the_budget(lengths):
    lengths = np.array(lengths, np.int64)
    batches = reading_batches(lengths, 60)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= 60 for rows in batches)


def test_padding_is_masked():
    batch = pad([[5, 6], [7]], 0, torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_texts_are_cut_at_the_limit(tiny_encoder):
    tokens = tokenise(open_tokenizer(str(tiny_encoder)), ["good " * 100, ""], 16)
    assert [len(row) for row in tokens] == [16, 2]


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        open_model(AutoModel.from_pretrained, str(tmp_path / "nowhere"))


def test_the_users_logging_comes_back_after_the_quiet():
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with quiet():
        assert not transformers_logging.is_progress_bar_enabled()
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
