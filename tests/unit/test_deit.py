"""Distillation: which head learns what from whom, what it costs, and whom it cannot teach."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, load
from thesis_kit.models import build
from thesis_kit.training import HardDistillation, LogitSqueezing, train

ONE = {"updates": 1, "lr": 0.1, "schedule": "constant", "momentum": 0.0, "weight_decay": 0.0, "progress": False}


def student(seed: int = 0) -> nn.Module:
    small = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
    return build("deit_tiny_distilled_patch16_224", n_classes=10, in_channels=1, seed=seed, **small)


def some(n: int = 20) -> Part:
    return load("digits", 0).train[:n]


class Always(nn.Module):
    """A teacher with one answer, that remembers in which mode it was asked."""

    def __init__(self, label: int):
        super().__init__()
        self.label, self.modes = label, []

    def forward(self, x):
        self.modes.append(self.training)
        return F.one_hot(torch.full((len(x),), self.label), 10).float()


def test_an_update_is_a_step_on_half_of_each_heads_loss():
    ours, theirs, data, teacher = student(), student(), some(), Always(3)
    train(ours, data, HardDistillation(teacher), **ONE)
    assert teacher.modes == [False]
    theirs.train()
    theirs.network.set_distilled_training(True)
    said, taught = theirs.network((data.x - theirs.mean) / theirs.std)
    loss = F.cross_entropy(said, data.y) / 2 + F.cross_entropy(taught, torch.full_like(data.y, 3)) / 2
    loss.backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other - 0.1 * other.grad, atol=1e-6), name


def test_an_update_costs_one_pass():
    report = train(student(), some(), HardDistillation(Always(0)), **{**ONE, "updates": 3})
    assert (report.passes.forward, report.passes.backward) == (3, 3)


def test_the_class_head_follows_labels_and_the_other_the_teacher():
    model, data = student(), some(200)
    train(model, data, HardDistillation(Always(3)), **{**ONE, "updates": 300, "lr": 0.003}, optimizer="adam")
    model.eval()
    seen = {}
    for name in ("head", "head_dist"):
        head = getattr(model.network, name)
        head.register_forward_hook(lambda module, inputs, logits, name=name: seen.update({name: logits.argmax(dim=1)}))
    model(data.x)
    assert (seen["head_dist"] == 3).all()
    assert (seen["head"] == data.y).double().mean() > 0.8


def test_a_zoo_model_can_be_the_teacher_and_leaves_no_hooks():
    model = student()
    before = copy.deepcopy(model.state_dict())
    train(model, some(), HardDistillation("cnn-digits-natural"), **ONE)
    assert not torch.equal(before["network.head_dist.weight"], model.state_dict()["network.head_dist.weight"])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_student_without_the_second_head_is_refused():
    with pytest.raises(ValueError, match="Sequential has no head or head_dist: take a distilled transformer"):
        train(build("small_cnn", seed=0), some(), HardDistillation(Always(0)), **ONE)


def test_terms_are_added():
    without, squeezed = student(), student()
    train(without, some(), HardDistillation(Always(0)), **ONE)
    train(squeezed, some(), HardDistillation(Always(0)), terms=[LogitSqueezing(0.5)], **ONE)
    assert not torch.equal(without.network.head.weight, squeezed.network.head.weight)


def test_a_term_may_ask_the_model_again():
    """A term of weight zero changes nothing, also if it shows the model other images."""
    without, again = student(), student()
    train(without, some(), HardDistillation(Always(0)), **ONE)
    term = lambda model, x, y, logits: 0.0 * model(1 - x).sum()  # noqa: E731
    train(again, some(), HardDistillation(Always(0)), terms=[term], **ONE)
    for (name, mine), other in zip(again.named_parameters(), without.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6), name


class Says(nn.Module):
    """A teacher with the same logits for all images."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float32))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_a_teacher_that_cannot_teach_is_refused():
    with pytest.raises(NonFiniteOutput, match="NaN or infinite logits"):
        train(student(), some(), HardDistillation(Says(*[float("nan")] * 10)), **ONE)
    with pytest.raises(ValueError, match="the teacher has 3 classes, the model 10"):
        train(student(), some(), HardDistillation(Says(0.0, 1.0, 2.0)), **ONE)


def test_a_run_with_another_teacher_is_another_run(tmp_path):
    asked = {**ONE, "checkpoint": tmp_path / "run.ckpt"}
    train(student(), some(), HardDistillation(Says(*range(10))), **asked)
    with pytest.raises(ValueError, match="method was"):
        train(student(), some(), HardDistillation(Says(*range(10, 0, -1))), **asked)
