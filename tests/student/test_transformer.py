import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from freeal.config import TransformerConfig
from freeal.errors import DataError, ModelError, TrainingError
from freeal.events import Note, Progress
from freeal.student import finetuning, transformer
from freeal.student.transformer import TransformerStudent, _Network, load
from freeal.types import CleanSplit, Inputs

LABELS = ("negative", "positive")


@pytest.fixture
def student(tiny_encoder):
    def build(labels=LABELS, seed=0, emit=lambda event: None, **config):
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "device": "cpu", "min_steps": 0}
        settings |= {"judge": "none", **config}
        return TransformerStudent(TransformerConfig(**settings), labels, seed, str(tiny_encoder), emit)

    return build


def targets_of(inputs, k=2):
    return np.eye(k, dtype=np.float32)[np.arange(len(inputs)) % 2]


def believe_half(losses):
    clean = losses[-1] <= np.median(losses[-1])
    return CleanSplit(clean.astype(np.float32), clean, losses.mean(axis=0))


@pytest.mark.parametrize("objective", ["plain", "freeal"])
def test_it_learns_what_the_words_tell(student, reviews, objective):
    learned = student(epochs=20, warmup_epochs=16, objective=objective).fit(
        reviews, targets_of(reviews), keep=believe_half
    )
    assert (learned.view(reviews).proba.argmax(1) == targets_of(reviews).argmax(1)).all()
    assert learned.losses_[-1].mean() < learned.losses_[0].mean()


@pytest.mark.parametrize(("min_steps", "epochs"), [(0, 2), (6, 2), (7, 3), (30, 10)])
def test_a_small_pool_is_read_in_more_epochs(student, reviews, min_steps, epochs):
    batches = -(-len(reviews) // 8)
    assert batches == 3
    learned = student(min_steps=min_steps).fit(reviews, targets_of(reviews))
    assert learned.losses_.shape == (epochs, len(reviews))


def test_where_a_judge_gives_the_losses_the_rows_are_read_once_in_the_end(student, reviews):
    watched = student(epochs=3).fit(reviews, targets_of(reviews))
    judged = student(epochs=3, judge="linear").fit(reviews, targets_of(reviews))
    np.testing.assert_array_equal(judged.losses_, watched.losses_[-1:])
    assert judged.view(reviews).proba.tobytes() == watched.view(reviews).proba.tobytes()


def test_training_leaves_the_random_state_of_the_process_alone(student, reviews):
    before = torch.get_rng_state()
    student(epochs=1).fit(reviews, targets_of(reviews))
    assert torch.equal(before, torch.get_rng_state())


def test_a_student_trained_before_changes_nothing(student, reviews):
    first = student().fit(reviews, targets_of(reviews)).view(reviews)
    student(seed=5).fit(reviews, targets_of(reviews)[::-1].copy())
    again = student().fit(reviews, targets_of(reviews)).view(reviews)
    assert again.proba.tobytes() == first.proba.tobytes()


def test_the_losses_are_those_of_the_finished_student_under_the_likeliest_label(student, reviews):
    targets = 0.8 * targets_of(reviews) + 0.1
    learned = student().fit(reviews, targets)
    given = learned.view(reviews).proba[np.arange(24), targets.argmax(1)]
    np.testing.assert_allclose(learned.losses_[-1], -np.log(given), atol=1e-4)


def test_the_filter_is_asked_once_an_epoch_after_the_warm_up(student, reviews):
    asked = []

    def keep(losses):
        asked.append(losses.shape)
        return believe_half(losses)

    student(objective="freeal", epochs=4, warmup_epochs=2).fit(reviews, targets_of(reviews), keep=keep)
    assert asked == [(1, 24), (1, 24)]  # the last reading each time


def test_a_filter_that_believes_nothing_does_not_spoil_the_weights(student, reviews):
    def nothing(losses):
        return CleanSplit(np.zeros(24, np.float32), np.zeros(24, bool), np.zeros(24))

    learned = student(objective="freeal", warmup_epochs=0).fit(reviews, targets_of(reviews), keep=nothing)
    assert np.isfinite(learned.losses_).all()


def test_rewordings_are_read_where_there_are_any(student, reviews):
    reworded = replace(reviews, rewordings=["the plot was good"] * 24)
    plain = student(objective="freeal").fit(reviews, targets_of(reviews)).view(reviews)
    other = student(objective="freeal").fit(reworded, targets_of(reviews)).view(reviews)
    assert not np.array_equal(plain.proba, other.proba)


@pytest.mark.parametrize("objective", ["plain", "freeal"])
def test_one_row_is_enough(student, reviews, objective):
    one = reviews.take(np.array([0]))
    learned = student(labels=("a", "b", "c"), objective=objective).fit(one, targets_of(one, 3), keep=believe_half)
    assert learned.losses_.shape == (2, 1)
    assert learned.view(reviews).proba.shape == (24, 3)


def test_no_row_is_refused(student):
    with pytest.raises(DataError, match="no labelled row to train on"):
        student().fit(Inputs([]), np.zeros((0, 2), np.float32))


def test_rows_without_weight_teach_nothing(student, reviews):
    targets, weights = targets_of(reviews), np.ones(24, np.float32)
    weights[::2] = 0.0
    learned = student(epochs=6).fit(reviews, targets, weights)
    assert (learned.view(reviews).proba.argmax(1) == 1).all()


def test_a_loss_that_runs_away_is_tried_again_and_then_named(student, reviews):
    heard = []
    too_heavy = np.full(24, 3e38, np.float32)
    with pytest.raises(TrainingError, match=r"not finite in epoch 1, batch 1.*Set student\.learning_rate lower"):
        student(emit=heard.append).fit(reviews, targets_of(reviews), too_heavy)
    assert [note.message for note in heard] == [
        "the loss was not finite in epoch 1, batch 1; starting again with half the learning rate"
    ]


@pytest.fixture
def in_float32():
    """As on a processor that does not multiply bfloat16: what is computed twice is the same to the last digits."""
    with pytest.MonkeyPatch.context() as patched:
        for place in (finetuning, transformer):
            patched.setattr(place, "bfloat16_is_faster", lambda device: False)
        yield


@pytest.mark.usefixtures("in_float32")
def test_the_second_try_starts_from_the_first_weights_with_half_the_learning_rate(student, reviews, monkeypatch):
    steps, sound = iter(range(100)), transformer.plain_loss
    monkeypatch.setattr(transformer, "plain_loss", lambda *given: sound(*given) * (np.nan if next(steps) == 3 else 1.0))
    heard = []
    second = student(emit=heard.append, learning_rate=4e-3).fit(reviews, targets_of(reviews))
    monkeypatch.undo()
    halved = student(learning_rate=2e-3).fit(reviews, targets_of(reviews))
    assert any(isinstance(event, Note) and "epoch 2, batch 1" in event.message for event in heard)
    assert second.losses_.tobytes() == halved.losses_.tobytes()


def test_progress_ends_at_the_last_batch(student, reviews):
    heard = []
    student(emit=heard.append).fit(reviews, targets_of(reviews))
    assert heard[-1] == Progress("training", 6, 6, "batches")


@pytest.mark.usefixtures("in_float32")
def test_features_are_the_input_of_the_last_layer(student, reviews):
    learned = student().fit(reviews, targets_of(reviews))
    view, head = learned.view(reviews), learned._fitted().head
    logits = torch.from_numpy(view.embeddings) @ head.weight.T + head.bias
    np.testing.assert_allclose(torch.softmax(logits, -1).detach().numpy(), view.proba, atol=1e-5)


@pytest.mark.parametrize("family", ["Roberta", "MPNet", "DistilBert", "DebertaV2", "ModernBert", "Electra"])
def test_the_last_layer_of_every_usual_encoder_is_found(family):
    import transformers

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3}
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
    if family == "DistilBert":
        small = {names.get(key, key): value for key, value in small.items()}
    config = getattr(transformers, f"{family}Config")(**small, intermediate_size=32, pad_token_id=0)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    network = _Network(model, 3, family)
    batch = {"input_ids": torch.tensor([[2, 5, 6], [2, 7, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    read = network(batch)
    torch.testing.assert_close(network.head(read.features), read.logits)


@pytest.mark.usefixtures("in_float32")
def test_a_saved_student_opens_in_transformers_without_freeal(student, reviews, tmp_path):
    learned = student(epochs=20).fit(reviews, targets_of(reviews))
    learned.save(tmp_path)
    program = (
        "import sys; from transformers import pipeline;"
        f"told = pipeline('text-classification', {str(tmp_path)!r}, device='cpu')('the film was charming')[0];"
        "assert 'freeal' not in sys.modules; print(told['label'], round(told['score'], 4))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    score = learned.view(Inputs(["the film was charming"])).proba[0, 1]
    assert told.stdout.split() == ["positive", str(round(float(score), 4))]


def test_a_saved_student_cuts_texts_where_it_did(student, reviews, tmp_path):
    long = Inputs(["good " * 20 + "bad " * 20])
    learned = student(max_tokens=12).fit(reviews, targets_of(reviews))
    learned.save(tmp_path)
    np.testing.assert_array_equal(load(tmp_path).view(long).proba, learned.view(long).proba)


def test_training_is_silent(student, reviews, capfd):
    student(epochs=1).fit(reviews, targets_of(reviews))
    assert capfd.readouterr() == ("", "")


def test_a_student_that_has_learned_nothing_says_so(student, reviews):
    with pytest.raises(ModelError, match="learned nothing yet"):
        student().view(reviews)


def test_labels_that_are_decided_apart_are_learned_apart(tiny_encoder, reviews):
    config = TransformerConfig(epochs=60, batch_size=8, learning_rate=5e-3, device="cpu", min_steps=0, judge="none")
    good = np.arange(24) % 2
    truth = np.stack([good, 1 - good, np.ones(24, int), np.zeros(24, int)], axis=1)
    several = TransformerStudent(config, ("good", "bad", "always", "never"), 0, str(tiny_encoder), several=True)
    learned = several.fit(reviews, np.eye(2, dtype=np.float32)[truth])
    assert (learned.view(reviews).proba.argmax(-1) == truth).all()
    assert learned.losses_.shape == (60, 24, 4)
