"""Transfer against plain re-implementations: distillation in NumPy with gradients by hand, the head by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from thesis_kit import training
from thesis_kit.data.parts import Part
from thesis_kit.models import anatomy
from thesis_kit.training import distillation
from thesis_kit.training.transfer import source_features

LR, MOMENTUM, DECAY, CLASSES, BATCH = 0.02, 0.9, 5e-3, 4, 5


def images(n: int = 23) -> Part:
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(n, 1, 3, 3, generator=generator, dtype=torch.float64)
    return Part(x, torch.arange(n) % CLASSES, torch.arange(n))


def source() -> nn.Module:
    """A perceptron whose normalization has statistics, scales and shifts worth keeping apart."""
    generator = torch.Generator().manual_seed(11)
    norm = nn.BatchNorm1d(6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), norm, nn.Tanh(), nn.Linear(6, 10)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    norm.running_mean, norm.running_var = (torch.rand(6, generator=generator).double() + shift for shift in (-0.5, 0.5))
    return model


def forward(weights, statistics, x):
    w1, b1, scale, shift, w2, b2 = weights
    mean, var = statistics
    normal = (x @ w1.T + b1 - mean) / np.sqrt(var + 1e-5)
    z = np.tanh(scale * normal + shift)
    return normal, z, z @ w2.T + b2


def surprise(logits, y):
    """Gradient of mean cross-entropy at the logits."""
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (share / share.sum(axis=1, keepdims=True) - np.eye(CLASSES)[y]) / len(logits)


def head_gradients(weights, z, y):
    at_logits = surprise(z @ weights[4].T + weights[5], y)
    return [at_logits.T @ z, at_logits.sum(0)]


def gradients(weights, statistics, x, y, z0, factor):
    """Of mean cross-entropy + factor · mean ‖z − z₀‖₁, in the six parameters."""
    normal, z, logits = forward(weights, statistics, x)
    at_logits = surprise(logits, y)
    at_z = at_logits @ weights[4] + factor * np.sign(z - z0) / len(x)
    at_normal = at_z * (1 - z**2)
    at_hidden = at_normal * weights[2] / np.sqrt(statistics[1] + 1e-5)
    return [at_hidden.T @ x, at_hidden.sum(0), (at_normal * normal).sum(0), at_normal.sum(0), at_logits.T @ z,
            at_logits.sum(0)]  # fmt: skip


@pytest.mark.parametrize("strength", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("fitted", [False, True])
def test_distillation_agrees_with_gradients_by_hand_to_1e_12(strength, fitted, monkeypatch):
    model, data, order, start, updates = source(), images(), [], [], 16
    minibatch = training.LwF.minibatch

    def note(self, x, y, run):
        order.append(run.index.numpy())
        if not start:
            start.extend(p.detach().numpy().copy() for p in run.model.parameters())
        minibatch(self, x, y, run)

    # Where z = z₀ the sign of z − z₀ is that of rounding, so the comparison begins elsewhere.
    away = torch.rand(len(data), 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    monkeypatch.setattr(distillation, "source_features", lambda *a, **k: source_features(*a, **k) + away)
    monkeypatch.setattr(training.LwF, "minibatch", note)
    head = anatomy.head(training.linear_head(model, data, n_classes=CLASSES, penalty=1.0)) if fitted else None
    new, _ = training.distill(
        model, data, strength=strength, n_classes=CLASSES, updates=updates, lr=LR, momentum=MOMENTUM,
        weight_decay=DECAY, batch_size=BATCH, head=head,
    )  # fmt: skip

    x, y, weights = data.x.flatten(1).numpy(), data.y.numpy(), list(start)
    statistics = model[2].running_mean.numpy(), model[2].running_var.numpy()
    z0 = forward(weights, statistics, x)[1] + away.numpy()
    factor = strength / np.abs(z0).sum(axis=1).mean()
    velocity = [np.zeros_like(w) for w in weights]
    for update, index in enumerate(order):
        on_head_alone = update < updates // 2 and not fitted
        if on_head_alone:
            slopes = [None] * 4 + head_gradients(weights, z0[index], y[index])
        else:
            slopes = gradients(weights, statistics, x[index], y[index], z0[index], factor)
        for i in range(4, 6) if on_head_alone else range(6):
            velocity[i] = MOMENTUM * velocity[i] + slopes[i] + DECAY * weights[i]
            weights[i] = weights[i] - LR * velocity[i]
    assert len(order) == updates
    for ours, expected in zip(new.parameters(), weights, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=0, atol=1e-12)
    assert max(np.abs(w - s).max() for w, s in zip(weights[:4], start[:4], strict=True)) > 1e-3


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_the_linear_head_is_scikit_learns_logistic_regression(penalty):
    model, data = source().eval(), images(60)
    z = anatomy.features(model, data.x).detach().numpy()
    mean, std = z.mean(axis=0), z.std(axis=0)
    theirs = LogisticRegression(C=1 / (penalty * len(z)), tol=1e-10, max_iter=10_000).fit((z - mean) / std, data.y)
    ours = training.linear_head(model, data, n_classes=CLASSES, penalty=penalty)
    fresh = images(200)
    z = anatomy.features(model, fresh.x).detach().numpy()
    expected = theirs.predict_log_proba((z - mean) / std)
    said = ours.eval()(fresh.x).log_softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-5)
