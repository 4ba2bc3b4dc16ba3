import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freeal.student.objectives import (
    JointReading,
    consistency,
    evenly,
    freeal_loss,
    mixup,
    no_and_yes,
    plain_loss,
    ramp,
    refined,
    robust_tagging_loss,
    sharpen,
    soft_cross_entropy,
    tagging_loss,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss_of(clean: list[bool], extra: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.nn.Linear]:
    b = len(clean)
    torch.manual_seed(seed)
    head, features = torch.nn.Linear(4, 3), torch.randn(b, 4)
    read = JointReading(features, head(features), head(features + 0.1))
    targets = torch.softmax(torch.randn(b, 3), dim=-1)
    loss = freeal_loss(
        read, targets, torch.ones(b), torch.tensor(clean, dtype=torch.bool), head, extra, 4.0, 0.85, chance()
    )
    return loss, head


def test_soft_cross_entropy_of_hard_targets_is_the_usual_one():
    logits, labels = torch.randn(5, 3, generator=chance()), torch.tensor([0, 2, 1, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, torch.eye(3)[labels]), expected)


def test_a_row_without_weight_teaches_nothing():
    logits = torch.zeros(2, 2, requires_grad=True)
    plain_loss(logits, torch.eye(2), torch.tensor([1.0, 0.0])).backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


@given(st.floats(0.3, 1.0), st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6))
@settings(max_examples=30)
def test_sharpening_keeps_distributions_and_never_lowers_the_largest(temperature, weights):
    proba = torch.tensor([weights], dtype=torch.float64)
    proba /= proba.sum()
    sharp = sharpen(proba, temperature)
    assert sharp.sum().item() == pytest.approx(1.0)
    assert sharp.max() >= proba.max() - 1e-9


def test_sharpening_a_certain_row_leaves_it_certain():
    torch.testing.assert_close(sharpen(torch.tensor([[1.0, 0.0]]), 0.85), torch.tensor([[1.0, 0.0]]))


def test_in_a_mixture_each_row_keeps_the_larger_part():
    features = torch.eye(6)
    for seed in range(20):
        mixed = mixup(features, features, 4.0, chance(seed))
        assert (mixed.features.diagonal() >= 0.5).all()
        torch.testing.assert_close(mixed.features, mixed.targets)


def test_the_mixture_is_fixed_by_its_generator_alone():
    features = torch.randn(6, 2, generator=chance())
    first = mixup(features, features, 4.0, chance(7))
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(first.features, mixup(features, features, 4.0, chance(7)).features)


def test_two_equal_readings_are_consistent_but_for_the_sharpening():
    logits = torch.tensor([[1.0, -1.0]])
    assert consistency(logits, logits, 1.0).item() == pytest.approx(0.0, abs=1e-6)
    assert consistency(logits, -logits, 1.0) > consistency(logits, 0.5 * logits, 1.0)


def test_the_extra_terms_rise_to_one():
    assert [ramp(epoch, 10) for epoch in (0.0, 5.0, 10.0, 50.0)] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("clean", [[False] * 4, [True] * 4, [True, False, False, False], [True], [False]])
def test_the_loss_is_finite_whatever_share_of_the_batch_is_clean(clean):
    # FreeAL's own code divides by zero when no row of a batch is clean
    loss, head = loss_of(clean)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(head.weight.grad).all()


def test_without_a_clean_row_and_before_the_ramp_nothing_is_learned():
    loss, head = loss_of([False, False], extra=0.0)
    loss.backward()
    assert loss.item() == 0.0
    assert head.weight.grad.abs().sum() == 0


def test_refined_targets_are_distributions_over_the_candidates_alone():
    targets = torch.tensor([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]])
    logits = torch.tensor([[0.0, 2.0, 9.0], [0.0, 5.0, 5.0]])
    found = refined(targets, logits, 0.5, 0.85)
    assert found.sum(dim=-1).tolist() == pytest.approx([1.0, 1.0])
    assert found[:, 2].tolist() == [0.0, 0.0]
    assert found[0, 1] > 0.5  # the student's word among the two that the LLM held possible
    assert found[1].tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_a_share_of_zero_leaves_the_targets_as_they_are():
    targets = torch.tensor([[0.7, 0.3, 0.0]])
    torch.testing.assert_close(refined(targets, torch.randn(1, 3), 0.0, 0.85), targets)


def test_yes_and_no_of_each_label_are_binary_cross_entropy():
    logits, yes, weights = torch.randn(5, 3), torch.rand(5, 3), torch.rand(5)
    targets = torch.stack([1 - yes, yes], dim=-1)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, yes, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(no_and_yes(logits), targets), each)
    torch.testing.assert_close(plain_loss(no_and_yes(logits), targets, weights), (weights * each.mean(1)).mean())


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_entity_words_weigh_half_however_few_they_are(classes):
    targets = torch.eye(3)[classes]
    weights, entity = evenly(targets), targets[:, 0] == 0
    for sort in (entity, ~entity):
        if sort.any():
            assert weights[sort].sum().item() == pytest.approx(len(classes) / 2)
            assert len(set(weights[sort].tolist())) == 1


def test_the_loss_of_words_is_half_that_of_the_entities_and_half_that_of_the_others():
    logits, targets = torch.randn(6, 3, generator=chance()), torch.eye(3)[[0, 0, 1, 0, 2, 0]]
    weights, entity = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.2, 1.0]), targets[:, 0] == 0
    losses = weights * soft_cross_entropy(logits, targets)
    expected = 0.5 * losses[entity].mean() + 0.5 * losses[~entity].mean()
    torch.testing.assert_close(tagging_loss(logits, targets, weights), expected)


def robust(trust, first=None, second=None, classes=(0, 1, 2, 0), extra=1.0, temperature=0.85):
    w = len(classes)
    first = torch.randn(w, 3, generator=chance()) if first is None else first
    second = torch.randn(w, 3, generator=chance(1)) if second is None else second
    targets = torch.eye(3)[list(classes)]
    return robust_tagging_loss(first, second, targets, torch.ones(w), torch.tensor(trust), extra, temperature)


def test_where_all_words_are_trusted_the_robust_loss_is_the_mean_of_the_plain_ones():
    readings, targets = [torch.randn(4, 3, generator=chance(seed)) for seed in (0, 1)], torch.eye(3)[[0, 1, 2, 0]]
    plain = [tagging_loss(logits, targets, torch.ones(4)) for logits in readings]
    torch.testing.assert_close(robust([1.0] * 4), (plain[0] + plain[1]) / 2)


def test_the_label_of_a_word_without_trust_teaches_nothing():
    assert robust([1.0, 0.0, 1.0, 1.0], classes=(0, 1, 2, 0)) == robust([1.0, 0.0, 1.0, 1.0], classes=(0, 2, 2, 0))
    assert robust([1.0, 0.5, 1.0, 1.0], classes=(0, 1, 2, 0)) != robust([1.0, 0.5, 1.0, 1.0], classes=(0, 2, 2, 0))


def test_two_readings_of_a_doubted_word_are_drawn_together_and_those_of_a_trusted_one_to_its_label():
    first = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]], requires_grad=True)
    second = torch.tensor([[0.0, 2.0, 0.0], [0.0, 2.0, 0.0]], requires_grad=True)
    robust([1.0, 0.0], first, second, classes=(2, 2)).backward()
    trusted, doubted = -first.grad
    assert trusted.argmax() == 2
    assert doubted.argmax() == 1  # what the other reading says
    assert (-second.grad[1]).argmax() == 0


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_equal_readings_are_consistent_whatever_is_trusted(trust):
    logits = torch.randn(3, 3, generator=chance())
    alone = robust(trust, logits, logits, classes=(0, 1, 2), extra=0.0)
    torch.testing.assert_close(robust(trust, logits, logits, classes=(0, 1, 2), temperature=1.0), alone)


def test_without_a_word_and_before_the_ramp_without_trust_nothing_is_learned():
    nothing = torch.zeros(0, 3)
    assert robust([], nothing, nothing, classes=()) == 0.0
    assert robust([0.0] * 4, extra=0.0) == 0.0


def test_a_decision_without_weight_teaches_nothing():
    logits = torch.zeros(2, 3, 2, requires_grad=True)
    weights = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.5]])
    plain_loss(logits, torch.eye(2)[torch.tensor([[0, 1, 1], [1, 0, 0]])], weights).backward()
    assert (logits.grad.abs().sum(dim=-1) > 0).tolist() == (weights > 0).tolist()


@given(st.floats(0.1, 3.0))
def test_the_weight_of_a_row_is_that_of_each_of_its_decisions(weight):
    logits, targets = torch.randn(2, 3, 2, generator=chance()), torch.eye(2)[torch.tensor([[0, 1, 1], [1, 0, 0]])]
    weights = torch.tensor([weight, 1.0])
    of_each = weights[:, None].expand(2, 3)
    torch.testing.assert_close(plain_loss(logits, targets, weights), plain_loss(logits, targets, of_each))
