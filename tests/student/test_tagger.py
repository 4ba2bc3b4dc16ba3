import doctest
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from freeal.config import TaggerConfig, TransformerConfig
from freeal.errors import DataError, ModelError, TrainingError
from freeal.events import Note, Progress
from freeal.select.filters import small_loss_gmm
from freeal.select.tags import loss_of_texts
from freeal.student import tagger
from freeal.student.finetuning import Head
from freeal.student.lessons import losses_under
from freeal.student.tagger import TaggerStudent, first_pieces, load
from freeal.student.transformer import TransformerStudent
from freeal.tasks.tags import decode
from freeal.types import Inputs

LABELS = ("OPINION", "THING")
TAGS = {"the": 3, "film": 4, "movie": 3, "plot": 3}  # "the film" is one thing
TAGS |= dict.fromkeys(("good", "great", "fine", "charming", "bad", "awful", "dull", "boring"), 1)


def words(text):
    return [found.span() for found in re.finditer(r"\S+", text)]


def targets_of(inputs):
    """(m, s, 5): the opinions in a text, and what they are about."""
    given = np.zeros((len(inputs), max(len(text.split()) for text in inputs.texts)), int)
    for row, text in enumerate(inputs.texts):
        given[row, : len(text.split())] = [TAGS.get(word, 0) for word in text.split()]
    return np.eye(5, dtype=np.float32)[given]


@pytest.fixture
def student(tiny_encoder):
    def build(labels=LABELS, seed=0, emit=lambda event: None, **config):
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 2e-3, "device": "cpu", "folds": 0, **config}
        return TaggerStudent(TaggerConfig(**{"min_steps": 0, **settings}), labels, seed, str(tiny_encoder), words, emit)

    return build


WAYS = {
    "alone": {},
    "crossed": {"folds": 2},
    "robust": {"folds": 3, "objective": "robust"},
    "freeal": {"objective": "freeal"},
}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_it_learns_what_the_words_tell(student, reviews, way):
    targets = targets_of(reviews)
    right = decode(student(epochs=20, **way).fit(reviews, targets).view(reviews).proba) == targets.argmax(-1)
    # what is hard looks like what is wrong: the robust one doubts some sound words too
    assert right.mean() > 0.95 if "objective" in way else right.all()


def test_losses_have_a_row_an_epoch_and_a_column_a_text(student, reviews, way):
    learned = student(**way).fit(reviews, targets_of(reviews))
    assert learned.losses_.shape == (1 if "folds" in way else 2, 24)
    assert np.isfinite(learned.losses_).all()
    assert (learned.losses_ >= 0).all()


def test_a_small_pool_is_read_in_more_epochs(student, reviews):
    assert student(min_steps=7).fit(reviews, targets_of(reviews)).losses_.shape == (3, 24)


def test_a_view_has_a_distribution_a_word_and_a_vector_of_length_one_a_text(student, reviews):
    view = student().fit(reviews, targets_of(reviews)).view(reviews)
    assert view.proba.shape == (24, 9, 5)
    assert view.proba.dtype == view.embeddings.dtype == np.float32
    np.testing.assert_allclose(view.proba.sum(axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(view.embeddings, axis=1), 1.0, atol=1e-5)
    for row, text in enumerate(reviews.texts):
        assert (view.proba[row, len(text.split()) :] == np.eye(5)[0]).all()


def test_a_view_keeps_the_order_of_the_texts(student, reviews):
    learned = student().fit(reviews, targets_of(reviews))
    view, back = learned.view(reviews), learned.view(Inputs(reviews.texts[::-1]))
    np.testing.assert_allclose(view.proba[::-1], back.proba, atol=1e-5)
    np.testing.assert_allclose(view.embeddings[::-1], back.embeddings, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "slots", "shape"), [([], None, (0, 0, 5)), ([], 7, (0, 7, 5)), (["", " "], 2, (2, 2, 5))]
)
def test_a_view_of_nothing_is_as_wide_as_asked(student, reviews, texts, slots, shape):
    view = student().fit(reviews, targets_of(reviews)).view(Inputs(texts), slots)
    assert view.proba.shape == shape
    assert (view.proba[..., 0] == 1).all()
    assert view.embeddings.shape == (len(texts), 32)


def test_embeddings_are_the_mean_over_the_last_hidden_states(student, reviews):
    learned = student().fit(reviews, targets_of(reviews))
    tokens = learned.tokenizer(reviews.texts[0], return_tensors="pt")
    with torch.inference_mode():
        mean = learned._fitted().base_model(**tokens).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(learned.view(reviews).embeddings[0], mean / mean.norm(), atol=1e-2)


@pytest.mark.parametrize("family", ["Roberta", "MPNet", "DistilBert", "DebertaV2", "ModernBert", "Electra"])
def test_the_last_hidden_states_of_every_usual_encoder_are_what_its_base_gives(family):
    import transformers

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3}
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
    if family == "DistilBert":
        small = {names.get(key, key): value for key, value in small.items()}
    config = getattr(transformers, f"{family}Config")(**small, intermediate_size=32, pad_token_id=0)
    model = getattr(transformers, f"{family}ForTokenClassification")(config).eval()
    ids = torch.tensor([[2, 5, 6]])
    hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(hidden, model.base_model(input_ids=ids).last_hidden_state)
    assert model.config.hidden_size == 16
    head = Head(model, 3, family)
    logits = model(input_ids=ids).logits
    torch.testing.assert_close(head.layer(head.features()), logits)


def test_the_objective_of_freeal_believes_words_after_the_warm_up_entities_and_others_apart(student, reviews):
    asked = []

    def keep(losses):
        asked.append(losses.shape)
        return small_loss_gmm(losses)

    targets = targets_of(reviews)
    student(epochs=5, objective="freeal", warmup_epochs=3).fit(reviews, targets, keep=keep)
    entities, all_words = int((targets.argmax(-1) > 0).sum()), sum(len(text.split()) for text in reviews.texts)
    assert asked == [(1, entities), (1, all_words - entities)] * 3


def test_the_objective_of_freeal_leaves_a_tag_that_is_not_believed(student, reviews):
    wrong = targets_of(reviews)
    wrong[17, 0] = np.eye(5)[3]  # "good" is no thing
    doubting, repeating = (
        student(epochs=20, ramp_epochs=2, objective=objective).fit(reviews, wrong, keep=small_loss_gmm)
        for objective in ("freeal", "plain")
    )
    assert doubting.view(reviews).proba[17, 0].argmax() == 1
    assert repeating.view(reviews).proba[17, 0].argmax() == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"objective": "freeal", "folds": 2}, "set folds to 0"), ({"objective": "robust"}, "set folds to 2")],
)
def test_an_objective_that_does_not_fit_the_folds_is_refused(student, settings, told):
    with pytest.raises(ValueError, match=told):
        student(**settings)


def test_out_of_fold_a_wrong_tag_is_not_confirmed(student, reviews):
    targets = targets_of(reviews)
    wrong = targets.copy()
    wrong[17, 0] = np.eye(5)[3]  # "good" is no thing
    assert reviews.texts[17] == "good"
    learned = student(epochs=20, folds=3).fit(reviews, wrong)
    assert learned.out_of_fold_.shape == wrong.shape
    assert learned.out_of_fold_[17, 0].argmax() == 1
    assert learned.losses_[0].argmax() == 17


def test_losses_are_those_of_the_words_entities_and_others_apart(student, reviews):
    targets = targets_of(reviews)
    learned = student(folds=2).fit(reviews, 0.9 * targets + 0.02)
    read = np.arange(9) < np.array([len(text.split()) for text in reviews.texts])[:, None]
    given = targets.argmax(-1)
    expected = loss_of_texts(losses_under(given, learned.out_of_fold_), given > 0, read)
    np.testing.assert_allclose(learned.losses_[0], expected, atol=1e-5)


def test_the_robust_objective_doubts_the_wrong_tag(student, reviews, monkeypatch):
    wrong, seen = targets_of(reviews), []
    wrong[17, 0] = np.eye(5)[3]
    sound = tagger.clean_words
    monkeypatch.setattr(tagger, "clean_words", lambda *given: seen.append(sound(*given)) or seen[-1])
    student(epochs=20, folds=3, objective="robust").fit(reviews, wrong)
    assert seen[0][17, 0] < 0.1
    assert np.median(seen[0]) > 0.9


def test_the_robust_objective_reads_twice_and_trusts_the_words_of_an_entity_alike(student, reviews, monkeypatch):
    seen, sound = [], tagger.robust_tagging_loss

    def loss(first, second, targets, weights, trust, **settings):
        seen.append((first.detach(), second.detach(), targets.argmax(-1), trust, settings["extra"]))
        return sound(first, second, targets, weights, trust, **settings)

    monkeypatch.setattr(tagger, "robust_tagging_loss", loss)
    student(epochs=8, folds=2, objective="robust", ramp_epochs=4).fit(reviews, targets_of(reviews))
    assert len(seen) == 8 * 3  # the last training alone: before it nobody knows what to trust
    assert all((first != second).any() for first, second, *_ in seen)
    goes_on = [(tags == 4, trust) for _, _, tags, trust, _ in seen]
    assert any(goes.any() for goes, _ in goes_on)
    assert all((trust[goes] == trust[goes.roll(-1)]).all() for goes, trust in goes_on)
    assert [extra for *_, extra in seen] == sorted(extra for *_, extra in seen)
    assert (seen[0][-1], seen[-1][-1]) == (0.0, 1.0)


def test_the_robust_objective_without_folds_is_refused():
    with pytest.raises(ValueError, match="set folds to 2 or more"):
        TaggerConfig(objective="robust", folds=1)


def test_the_same_seed_gives_the_same_bytes_whatever_ran_before(student, reviews, tmp_path, way):
    first = student(**way).fit(reviews, targets_of(reviews))
    second = student(**way).fit(reviews, targets_of(reviews)[:, :, [0, 3, 4, 1, 2]]).fit(reviews, targets_of(reviews))
    first.save(tmp_path / "first")
    second.save(tmp_path / "second")
    assert first.losses_.tobytes() == second.losses_.tobytes()
    for file in sorted((tmp_path / "first").iterdir()):
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_training_leaves_the_random_state_of_the_process_alone_and_is_silent(student, reviews, capfd):
    before = torch.get_rng_state()
    student(folds=2).fit(reviews, targets_of(reviews))
    assert torch.equal(before, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")


def test_a_saved_student_sees_what_it_saw_and_holds_no_pickle(student, reviews, tmp_path):
    learned = student(max_tokens=8).fit(reviews, targets_of(reviews))
    learned.save(tmp_path)
    again = load(tmp_path, words)
    for mine, its in zip(
        (learned.view(reviews).proba, learned.view(reviews).embeddings),
        (again.view(reviews).proba, again.view(reviews).embeddings),
        strict=True,
    ):
        np.testing.assert_array_equal(its, mine)
    assert (again.labels, again.classes) == (LABELS, ("O", "B-OPINION", "I-OPINION", "B-THING", "I-THING"))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".pkl", ".bin", ".pt", ".npy"}]


def test_a_saved_student_opens_in_transformers_without_freeal(student, reviews, tmp_path):
    student(epochs=20).fit(reviews, targets_of(reviews)).save(tmp_path)
    program = (
        "import sys; from transformers import pipeline;"
        f"told = pipeline('token-classification', {str(tmp_path)!r}, device='cpu')('the film was charming');"
        "assert 'freeal' not in sys.modules; print(*[word['entity'] for word in told])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told.stdout.split() == ["B-THING", "I-THING", "B-OPINION"]


def test_an_empty_folder_and_a_student_of_another_kind_are_named(tmp_path, tiny_encoder, reviews):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load(tmp_path, words)
    config = TransformerConfig(epochs=1, device="cpu")
    rows = TransformerStudent(config, ("a", "b"), 0, str(tiny_encoder)).fit(reviews, np.eye(2)[np.arange(24) % 2])
    rows.save(tmp_path)
    with pytest.raises(ModelError, match=r"no tagger.*student\.json"):
        load(tmp_path, words)


def test_words_that_are_not_read_are_told_of_and_a_certain_o(student, reviews):
    heard = []
    learned = student(max_tokens=6, epochs=1, emit=heard.append).fit(reviews, targets_of(reviews))
    proba = learned.view(Inputs(["the film was good and not bad"])).proba[0]
    assert (proba[4:] == np.eye(5)[0]).all()
    assert (proba[:4, 0] < 1).all()
    notes = [event.message for event in heard if isinstance(event, Note)]
    assert notes[0].startswith(
        "40 of 112 words are not read, and without a word of the LLM count as O: they lie behind 6 tokens"
    )
    assert notes[1].startswith("3 of 7 words")


def test_the_words_behind_the_slots_are_left_out(student, reviews, monkeypatch):
    heard = []
    monkeypatch.setattr(tagger, "MOST_WORDS", 3)
    learned = student(emit=heard.append).fit(reviews, targets_of(reviews))
    assert learned.view(reviews).proba.shape == (24, 3, 5)
    assert heard[-1].message.startswith("56 of 112 words")
    assert "or 3 words" in heard[-1].message


def test_what_the_targets_say_behind_the_last_word_teaches_nothing(student, reviews):
    targets = targets_of(reviews)
    other = targets.copy()
    other[16:, 1:] = np.eye(5)[2]  # these have one word
    first, second = (student().fit(reviews, given).view(reviews).proba for given in (targets, other))
    assert first.tobytes() == second.tobytes()


def test_rows_without_weight_teach_nothing(student, reviews):
    targets, weights = targets_of(reviews), np.ones(24, np.float32)
    weights[:16] = 0.0  # all that have things in them
    learned = student(epochs=6).fit(reviews, targets, weights)
    assert (decode(learned.view(reviews).proba) < 3).all()


@pytest.mark.parametrize("m", [1, 2, 3])
def test_few_rows_are_enough(student, reviews, m):
    few = reviews.take(np.arange(m))
    learned = student(folds=2, objective="robust").fit(few, targets_of(few))
    assert np.isfinite(learned.losses_).all()
    assert learned.losses_.shape == (1, m)
    if m == 1:
        assert learned.out_of_fold_[0, 3] == pytest.approx(np.full(5, 0.2))


def test_lessons_that_cannot_be_learned_are_refused(student, reviews):
    targets = targets_of(reviews)
    with pytest.raises(DataError, match="no labelled row"):
        student().fit(Inputs([]), np.zeros((0, 3, 5)))
    with pytest.raises(DataError, match=r"the shape \(24, 9, 4\); expected \(24, s, 5\)"):
        student().fit(reviews, targets[..., :4])
    with pytest.raises(DataError, match="no word to train on"):
        student().fit(reviews, targets[:, :0])
    targets[5] = np.nan
    with pytest.raises(DataError, match="row 5 are not finite"):
        student().fit(reviews, targets)
    with pytest.raises(ModelError, match="learned nothing yet"):
        student().view(reviews)


def test_a_loss_that_runs_away_is_tried_again_and_then_named(student, reviews):
    heard = []
    with pytest.raises(TrainingError, match=r"not finite in epoch 1, batch 1.*Set student\.learning_rate lower"):
        student(emit=heard.append).fit(reviews, targets_of(reviews), np.full(24, 3e38, np.float32))
    assert [note.message for note in heard] == [
        "the loss was not finite in epoch 1, batch 1; starting again with half the learning rate"
    ]


def test_progress_tells_the_trainings_apart(student, reviews):
    heard = []
    student(folds=2, emit=heard.append).fit(reviews, targets_of(reviews))
    assert [event for event in heard if isinstance(event, Progress) and event.done == event.total] == [
        Progress("training without fold 1 of 2", 4, 4, "batches"),
        Progress("training without fold 2 of 2", 4, 4, "batches"),
        Progress("training", 6, 6, "batches"),
    ]


def test_the_first_piece_of_a_word_speaks_for_it():
    pieces = [(0, 0), (0, 4), (4, 7), (7, 8), (9, 12), (0, 0)]
    assert first_pieces([(0, 7), (7, 8), (8, 12), (12, 13)], pieces).tolist() == [1, 3, 4, -1]
    assert first_pieces([], pieces).tolist() == []
    assert first_pieces([(0, 3)], [(0, 0)]).tolist() == [-1]
    assert first_pieces([(0, 0), (2, 4)], [(0, 5)]).tolist() == [-1, 0]  # an empty word; one inside a token


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(tagger).failed == 0
