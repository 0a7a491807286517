"""Free against a plain re-implementation in NumPy, written from the paper's Algorithm 1 with its gradients by hand.

The network is a two-layer perceptron in float64, small enough to differentiate on paper. Both sides see the same
minibatches, which the training loop reports through ``augment``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thesis_kit import training
from thesis_kit.data.parts import Part
from thesis_kit.training.schedules import SCHEDULES

EPS, LR, MOMENTUM, DECAY, CLASSES = 0.2, 0.3, 0.9, 5e-3, 4


def images(n: int = 14) -> Part:
    """Pixels of which a third are exactly black or white, where clipping holds the perturbed image."""
    generator = torch.Generator().manual_seed(7)
    x = (torch.rand(n, 1, 3, 3, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    return Part(x, torch.randint(CLASSES, (n,), generator=generator), torch.arange(n))


def perceptron() -> nn.Module:
    generator = torch.Generator().manual_seed(11)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return model


def gradients(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Of the mean cross-entropy, in the four parameters and in x (n, 9)."""
    w1, b1, w2, b2 = weights
    hidden = np.tanh(x @ w1.T + b1)
    logits = hidden @ w2.T + b2
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    at_logits = (share - np.eye(CLASSES)[y]) / len(x)
    at_hidden = (at_logits @ w2) * (1 - hidden**2)
    return [at_hidden.T @ x, at_hidden.sum(0), at_logits.T @ hidden, at_logits.sum(0)], at_hidden @ w1


def free_by_hand(weights, minibatches, *, replays, updates, batch_size, schedule, masked=False):
    """Algorithm 1 with SGD, momentum and weight decay; ``masked`` would stop the gradient where clipping acts."""
    velocity, delta, update = [np.zeros_like(w) for w in weights], np.zeros((batch_size, 9)), 0
    for x, y in minibatches:
        for _ in range(replays):
            if update == updates:
                break
            moved = x + delta[: len(x)]
            at_weights, at_input = gradients(weights, np.clip(moved, 0, 1), y)
            if masked:
                at_input = at_input * ((moved >= 0) & (moved <= 1))
            rate = LR * SCHEDULES[schedule](update / updates)
            for i, gradient in enumerate(at_weights):
                velocity[i] = MOMENTUM * velocity[i] + gradient + DECAY * weights[i]
                weights[i] = weights[i] - rate * velocity[i]
            delta[: len(x)] = np.clip(delta[: len(x)] + EPS * np.sign(at_input), -EPS, EPS)
            update += 1
    return weights, delta


def both(replays: int, updates: int, schedule: str = "one-cycle", masked: bool = False):
    """The loop's weights and perturbation, and those by hand."""
    model, seen, batch_size = perceptron(), [], 4  # 14 images: every fourth minibatch has two
    start = [p.detach().numpy().copy() for p in model.parameters()]

    def note(x, random):
        seen.append(x)
        return x

    data, method = images(), training.Free(EPS, replays)
    training.train(
        model, data, method, updates=updates, batch_size=batch_size, lr=LR, momentum=MOMENTUM, weight_decay=DECAY,
        schedule=schedule, augment=note,
    )  # fmt: skip
    labels = {tuple(x.flatten().tolist()): int(y) for x, y in zip(data.x, data.y, strict=True)}
    minibatches = [(x.flatten(1).numpy(), np.array([labels[tuple(row.flatten().tolist())] for row in x])) for x in seen]
    by_hand = free_by_hand(
        start, minibatches, replays=replays, updates=updates, batch_size=batch_size, schedule=schedule, masked=masked
    )
    return [p.detach().numpy() for p in model.parameters()], method.state()["perturbation"], *by_hand


@pytest.mark.parametrize("schedule", ["one-cycle", "steps"])
@pytest.mark.parametrize(("replays", "updates"), [(1, 9), (3, 30), (8, 60), (4, 27)])
def test_weights_and_perturbation_agree_to_1e_12(replays, updates, schedule):
    weights, perturbation, weights_by_hand, by_hand = both(replays, updates, schedule)
    for w, expected in zip(weights, weights_by_hand, strict=True):
        np.testing.assert_allclose(w, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(perturbation.flatten(1).numpy(), by_hand, rtol=0, atol=1e-15)
    assert np.abs(by_hand).max() == EPS


def test_the_gradient_is_taken_at_the_input_not_through_the_clipping():
    weights, _, masked, _ = both(4, 24, masked=True)
    assert max(np.abs(w - m).max() for w, m in zip(weights, masked, strict=True)) > 1e-4
    assert "after clipping to [0, 1]" in training.Free.__doc__
