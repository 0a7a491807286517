"""Real architectures by their own names, with random weights: shapes, normalization, one attack step, two updates.

What a reader runs on a GPU with pretrained weights goes through the same code, so names, shapes and hooks are right
the first time.
"""

from __future__ import annotations

import pytest
import timm
import torch

from thesis_kit import attacks, training
from thesis_kit.data import Part
from thesis_kit.evaluation import robust_accuracy
from thesis_kit.models import build

IMAGENET = {"vit_tiny_patch16_224": 224, "resnet18": 224, "convnext_atto": 224}
SMALL = {"wrn_32_10": 32, "preact_resnet18": 32}
EPS = 8 / 255


def images(size: int, n: int = 2) -> Part:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 3, size, size, generator=generator)
    return Part(x, torch.arange(n) % 10, torch.arange(n))


@pytest.fixture(scope="module", params=[*IMAGENET, *SMALL])
def architecture(request):
    """Name, classifier for ten classes, image size."""
    name = request.param
    return name, build(name, n_classes=10, seed=0), {**IMAGENET, **SMALL}[name]


def test_pixels_to_logits_with_the_architectures_own_normalization(architecture):
    name, model, size = architecture
    x = images(size).x
    model.eval()
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 10)
        assert torch.isfinite(logits).all()
        if name in IMAGENET:
            config = timm.get_pretrained_cfg(name)
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
            expected = model.network((x - mean) / std)
        else:
            expected = model.network(x)
    assert torch.allclose(logits, expected, atol=1e-5)


def test_one_step_of_pgd_stays_in_the_ball_and_raises_the_loss(architecture):
    _, model, size = architecture
    model.eval()
    data = images(size)
    with torch.no_grad():
        y = model(data.x).argmax(dim=1)  # what it says now, so that there is something to lose
        before = torch.nn.functional.cross_entropy(model(data.x), y)
    x_adv = attacks.pgd(model, data.x, y, eps=EPS, steps=1, step_size=EPS, random_start=False)
    assert (x_adv - data.x).abs().max() <= EPS * (1 + 1e-6) + 1e-7
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (x_adv != data.x).flatten(1).any(dim=1).all()
    with torch.no_grad():
        assert torch.nn.functional.cross_entropy(model(x_adv), y) > before


def test_two_updates_of_free_move_the_weights_at_natural_cost(architecture):
    _, model, size = architecture
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = training.train(
        model, images(size), training.Free(EPS, replays=2), updates=2, batch_size=2, lr=0.01, schedule="constant"
    )
    assert (report.updates, report.passes.forward, report.passes.backward) == (2, 2, 2)
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, start[name])]
    assert len(moved) > 0.5 * len(list(model.parameters()))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    model.load_state_dict(start)


def test_every_route_of_transfer_runs_through(architecture):
    _, model, size = architecture
    model.eval()
    data, start = images(size), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted = training.linear_head(model, data, n_classes=2)
    assert fitted(data.x).argmax(dim=1).tolist() == data.y.tolist()
    retrained, _ = training.retrain_last(model, data, 0, n_classes=2, updates=1, lr=0.01)
    distilled, report = training.distill(model, data, strength=1.0, n_classes=2, updates=2)
    assert (report.passes.forward, report.passes.backward) == (2, 1)
    for new in (retrained, distilled):
        assert torch.isfinite(new(data.x)).all()
        assert not any(module.training for module in new.modules())
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())


def test_an_evaluation_runs_through(architecture):
    _, model, size = architecture
    data = images(size)
    with torch.no_grad():
        y = model.eval()(data.x).argmax(dim=1)
    result = robust_accuracy(model, (data.x, y), {"FGSM": lambda *a, **k: attacks.fgsm(*a, eps=EPS, **k)})
    assert result.clean_accuracy == 1.0
    assert result["FGSM"].passes.backward == 1


def test_a_fixed_input_size_is_resized_to_and_a_free_one_is_left():
    vit, resnet = build("vit_tiny_patch16_224", seed=0), build("resnet18", seed=0)
    assert vit.size == (224, 224)
    assert resnet.size is None
    with torch.no_grad():
        assert vit.eval()(torch.rand(1, 3, 64, 80)).shape == (1, 1000)
        assert resnet.eval()(torch.rand(1, 3, 64, 80)).shape == (1, 1000)


def test_a_vit_built_for_another_size_gets_images_of_that_size():
    model = build("vit_tiny_patch16_224", img_size=64, n_classes=5, seed=0).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 5)
        assert model(torch.rand(1, 3, 96, 96)).shape == (1, 5)


def test_other_channels_get_the_average_statistics():
    model = build("resnet18", in_channels=1, n_classes=10, seed=0)
    assert model.mean.flatten().tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert model.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 10)
