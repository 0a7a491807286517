"""The Shadow Attack against a plain re-implementation, and what it promises about images, noise and certificates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from thesis_kit.attacks.shadow import (
    PUBLISHED,
    ShadowConstants,
    color_shift,
    descend,
    dissimilarity,
    random_start,
    shadow,
    total_variation,
)
from thesis_kit.attacks.spoofing import spoof, spoof_bounds
from thesis_kit.certification import ABSTAIN, certify, crown_ibp_margins, ibp_margins
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.randomness import mix_seed

FEW = ShadowConstants(steps=5, draws=6)


def net(n_classes=4, channels=3):
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 4 * 4, n_classes)
    ).eval()


def images(n, channels=3):
    return 0.2 + 0.6 * torch.rand(n, channels, 6, 6, generator=torch.Generator().manual_seed(0))


def test_the_penalties_are_what_their_formulas_say():
    delta = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i, d in enumerate(delta.tolist()):
        tv = sum((d[c][r][s + 1] - d[c][r][s]) ** 2 for c in range(3) for r in range(4) for s in range(4))
        tv += sum((d[c][r + 1][s] - d[c][r][s]) ** 2 for c in range(3) for r in range(3) for s in range(5))
        assert total_variation(delta)[i] == pytest.approx(tv)
        means = [sum(abs(v) for row in channel for v in row) / 20 for channel in d]
        assert color_shift(delta)[i] == pytest.approx(sum(mean**2 for mean in means))
        spread = [
            (d[0][r][s] - d[1][r][s]) ** 2 + (d[1][r][s] - d[2][r][s]) ** 2 + (d[0][r][s] - d[2][r][s]) ** 2
            for r in range(4)
            for s in range(5)
        ]
        assert dissimilarity(delta)[i] == pytest.approx(math.sqrt(sum(s**2 for s in spread)))
    assert dissimilarity(delta[:, :1].expand(-1, 3, -1, -1)).max() < 1e-6
    assert dissimilarity(delta[:, :1]).tolist() == [0, 0]


@pytest.mark.parametrize("one_channel", [True, False])
@pytest.mark.parametrize("sigma", [0.3, 0.0])
def test_it_is_the_papers_procedure(one_channel, sigma):
    """Descent on mean cross-entropy plus penalties, one image at a time, clipped at the end."""
    model, x, target = net(), images(3), torch.tensor([1, 0, 3])
    constants = replace(FEW, one_channel=one_channel, tv=0.2, color=3.0, dissimilarity=0.4)
    found = shadow(model, x, target, sigma=sigma, constants=constants, seed=5, ids=torch.tensor([7, 8, 9]))
    for i, image_id in enumerate((7, 8, 9)):
        delta = random_start(x[i : i + 1], torch.tensor([image_id]), target[i : i + 1], constants, 5)
        generator = torch.Generator().manual_seed(mix_seed(5, 1, image_id, 0))
        noise = sigma * torch.randn(6, 3, 6, 6, generator=generator)
        for _ in range(5):
            delta = delta.detach().requires_grad_()
            full = delta.expand(1, 3, 6, 6)
            loss = nn.functional.cross_entropy(model(x[i] + full + noise), target[i].repeat(6))
            loss = loss + 0.2 * total_variation(full) + 3.0 * color_shift(full)
            loss = loss + (0.0 if one_channel else 0.4 * dissimilarity(full))
            delta = delta - 0.1 * torch.autograd.grad(loss.sum(), delta)[0]
        assert torch.allclose(found[i], (x[i] + delta[0]).clamp(0, 1), atol=1e-5)


def test_results_do_not_depend_on_company_or_chunks():
    model, x, ids, target = net(), images(4), torch.tensor([3, 3, 8, 1]), torch.tensor([1, 2, 0, 3])
    together = shadow(model, x, target, sigma=0.3, constants=FEW, ids=ids)
    for chunk in (1, 2, 6, 12, 100):
        some = shadow(model, x, target, sigma=0.3, constants=FEW, ids=ids, chunk=chunk)
        assert torch.allclose(some, together, atol=1e-5)
    order = torch.tensor([2, 0])
    some = shadow(model, x[order], target[order], sigma=0.3, constants=FEW, ids=ids[order])
    assert torch.allclose(some, together[order], atol=1e-5)
    assert not torch.allclose(shadow(model, x, target, sigma=0.3, constants=FEW, ids=ids, seed=1), together, atol=1e-2)


def test_noise_is_fixed_unless_it_is_to_be_renewed():
    model, x, target = net(), images(2), torch.tensor([1, 2])
    fixed, renewed = replace(FEW, renewed=False), replace(FEW, renewed=True)

    def attacked(constants, steps):
        return shadow(model, x, target, sigma=0.5, constants=replace(constants, steps=steps))

    assert torch.equal(attacked(fixed, 1), attacked(renewed, 1))
    assert not torch.allclose(attacked(fixed, 5), attacked(renewed, 5), atol=1e-3)


def test_a_shadow_of_one_channel_is_gray_and_pixels_stay_in_range():
    x = images(3)
    found = shadow(net(), x, torch.tensor([1, 2, 3]), sigma=0.2, constants=replace(FEW, start=0.05, steps=2))
    delta = found - x
    assert delta.abs().max() > 0.01
    assert (delta - delta.mean(dim=1, keepdim=True)).abs().max() < 1e-6
    wild = shadow(net(), x, torch.tensor([1, 2, 3]), sigma=0.2, constants=replace(FEW, start=2.0))
    assert wild.min() == 0
    assert wild.max() == 1


@pytest.mark.parametrize("renewed", [False, True])
def test_a_final_stage_goes_on_where_the_first_stopped(renewed):
    """Far out of the pixel range too, and with new noise where every step has its own."""
    model, x, y = net(), images(3), torch.tensor([0, 0, 0])
    constants = replace(FEW, start=0.9, tv=0.0, color=0.0, step_size=1.0, renewed=renewed)
    knobs = {"sigma": 0.25, "n": 200, "alpha": 0.01, "targets": [2], "n_select": 100}
    whole = spoof(model, x, y, constants=replace(constants, steps=7), **knobs)
    first = spoof(model, x, y, constants=replace(constants, steps=3), **knobs)
    both = spoof(model, x, y, constants=replace(constants, steps=3), final=replace(constants, steps=4), **knobs)
    assert not torch.allclose(whole.images, first.images, atol=1e-3)
    for one, of_first, of_both in zip(whole.images, first.images, both.images, strict=True):
        assert min((one - of_both).abs().max(), (of_first - of_both).abs().max()) < 1e-5
    assert any(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole.images, both.images, strict=True))


def test_what_the_first_stage_had_is_kept_where_going_on_undoes_it():
    model, x, y = net(), images(4), torch.tensor([0, 1, 2, 3])
    constants = ShadowConstants(steps=40, draws=8, tv=0.01, color=0.1)
    knobs = {"sigma": 0.25, "n": 200, "alpha": 0.01, "n_select": 200}
    first = spoof(model, x, y, constants=constants, **knobs)
    spoiled = spoof(model, x, y, constants=constants, final=replace(constants, steps=200, color=40.0), **knobs)
    assert first.wrong.all()
    assert torch.equal(spoiled.images, first.images)


def test_penalties_do_what_they_are_for():
    model, x, target = net(), images(4), torch.tensor([1, 2, 3, 0])
    constants = ShadowConstants(steps=60, draws=4, one_channel=False, tv=0.0, color=0.0, dissimilarity=0.0)
    plain = shadow(model, x, target, sigma=0.2, constants=constants) - x
    for name, measure in (("tv", total_variation), ("color", color_shift), ("dissimilarity", dissimilarity)):
        held = shadow(model, x, target, sigma=0.2, constants=replace(constants, **{name: 0.5})) - x
        assert (measure(held) < measure(plain)).all(), name


# --- certificates of bounds


def bounded(n_classes=4):
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, n_classes)).double().eval()


PULL = ShadowConstants(steps=40, step_size=0.3, start=0.1, tv=0.01, color=0.1)


@pytest.mark.parametrize("bound", ["ibp", "crown-ibp"])
def test_a_forged_box_is_wrong_through_and_through(bound):
    model, x, y, eps = bounded(), images(5).double(), torch.tensor([0, 1, 2, 3, 0]), 0.01
    found = spoof_bounds(model, x, y, eps=eps, constants=PULL, bound=bound)
    margins = {"ibp": ibp_margins, "crown-ibp": crown_ibp_margins}[bound](model, found.images, found.targets, eps)
    least = margins.scatter(1, found.targets[:, None], math.inf).amin(dim=1)
    assert torch.allclose(found.least, least)
    assert torch.equal(found.wrong, least > 0)
    assert found.wrong.sum() >= 3
    assert (found.targets != y).all()
    box = found.images + eps * (2 * torch.rand(500, *found.images.shape, dtype=torch.float64) - 1)
    answers = model(box.clamp(0, 1).flatten(0, 1)).argmax(dim=1).view(500, 5)
    assert (answers == found.targets)[:, found.wrong].all()
    assert torch.allclose(found.norms, (found.images - x).flatten(1).norm(dim=1))
    assert f"{int(found.wrong.sum())} of 5 images verified with a wrong label" in str(found)


def test_the_best_target_is_kept_whatever_the_chunk():
    model, x, y = bounded(), images(3).double(), torch.tensor([0, 1, 2])
    found = spoof_bounds(model, x, y, eps=0.01, constants=PULL)
    alone = torch.full((4, 3), -math.inf, dtype=torch.float64)  # target by image
    for target in range(4):
        rows = (y != target).nonzero()[:, 0]
        one = spoof_bounds(model, x[rows], y[rows], eps=0.01, constants=PULL, targets=[target], ids=rows)
        alone[target, rows] = one.least
    assert torch.allclose(found.least, alone.amax(dim=0))
    assert torch.equal(found.targets, alone.argmax(dim=0))
    chunked = spoof_bounds(model, x, y, eps=0.01, constants=PULL, chunk=2)
    assert torch.allclose(chunked.images, found.images)


def test_pixels_are_clipped_on_the_way_and_the_gradient_passes():
    """A step of the attack on one image and one target, as the released code makes it."""
    model, x, target, eps = bounded(), images(1).double(), torch.tensor([2]), 0.02
    constants = ShadowConstants(steps=2, step_size=3.0, start=0.9, tv=0.0, color=0.0, length=0.5, drops=(1,))
    delta = random_start(x, torch.tensor([0]), target, constants, 0)
    for step in range(2):
        clipped = (x + delta).clamp(0, 1).requires_grad_()
        bounds = ibp_margins(model, clipped, target, eps)
        (climb,) = torch.autograd.grad(nn.functional.cross_entropy(-bounds, target), clipped)
        whole = delta.expand_as(x)
        slope = (0.5 * whole / whole.norm()).sum(dim=1, keepdim=True) + climb.sum(dim=1, keepdim=True)
        delta = delta - 3.0 / (3 if step >= 1 else 1) * slope
    found = spoof_bounds(model, x, torch.tensor([0]), eps=eps, constants=constants, targets=[2])
    assert torch.allclose(found.images, (x + delta).clamp(0, 1), atol=1e-9)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"y": torch.tensor([0, 9])}, "labels must lie in"),
        ({"targets": [0, 7]}, "targets must lie in"),
        ({"targets": [0]}, "an image of class 0 has no other class to aim at"),
        ({"eps": -0.1}, "eps must be"),
        ({"bound": "ipb"}, "did you mean ibp"),
        ({"chunk": 0}, "chunk must be"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Softmax(dim=1))}, "no bounds are known"),
    ],
)
def test_boxes_that_cannot_be_forged_are_refused(knobs, said):
    usual = {"model": bounded().float(), "x": images(2), "y": torch.tensor([0, 1]), "eps": 0.01}
    usual |= {"constants": PULL, **knobs}
    with pytest.raises(ValueError, match=said):
        spoof_bounds(usual.pop("model"), usual.pop("x"), usual.pop("y"), **usual)


def test_descend_takes_any_loss_and_reaches_its_minimum():
    x, target = images(2), torch.tensor([0, 0])
    aim = 0.5 * torch.ones(2, 3, 6, 6)
    none = ShadowConstants(tv=0.0, color=0.0, dissimilarity=0.0, one_channel=False, steps=200)
    found = descend(lambda images, _: (images - aim).square().sum(dim=(1, 2, 3)), x, target, constants=none)
    assert torch.allclose(found, aim, atol=1e-4)


def test_a_spoof_is_certified_with_a_wrong_label_outside_the_natural_certificate():
    model, x = net(), images(5)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    knobs = {"sigma": 0.25, "n": 500, "alpha": 0.01}
    natural = certify(model, x, **knobs)
    constants = ShadowConstants(steps=40, draws=8, tv=0.01, color=0.1)
    final = replace(constants, steps=20)
    found = spoof(model, x, y, **knobs, constants=constants, n_select=100, finalists=2, final=final)
    assert found.wrong.sum() >= 4
    assert (found.targets != y).all()
    labels, wrong = found.certificates.labels, found.wrong
    assert (labels[wrong] == found.targets[wrong]).all()
    assert torch.equal(wrong, (labels != y) & (labels != ABSTAIN))
    assert torch.equal(found.radii > 0, wrong)
    same = wrong & (natural.labels == y)
    assert (found.norms.double()[same] > natural.radii[same]).all()  # or a certificate would be false
    assert torch.allclose(found.norms, (found.images - x).flatten(1).norm(dim=1))
    assert torch.equal(found.tv, total_variation(found.images - x))
    assert f"{int(wrong.sum())} of 5 images" in str(found)


def test_a_spoof_tries_the_targets_it_is_given_and_keeps_the_strongest():
    model, x, y = net(), images(2), torch.tensor([0, 1])
    knobs = {"sigma": 0.25, "n": 200, "alpha": 0.01, "n_select": 100, "constants": replace(FEW, steps=20)}
    alone = {c: spoof(model, x, y, targets=[c], **knobs) for c in (2, 3)}
    both = spoof(model, x, y, targets=[2, 3], **knobs)
    for i in range(2):
        chosen = int(both.targets[i])
        assert torch.allclose(both.images[i], alone[chosen].images[i], atol=1e-5)
    strength = {c: certify(model, alone[c].images, sigma=0.25, n=100, alpha=0.01, seed=mix_seed(0, 2)) for c in (2, 3)}
    for i in range(2):
        radii = {c: s[i].radius if s[i].label not in (ABSTAIN, int(y[i])) else -1.0 for c, s in strength.items()}
        assert radii[int(both.targets[i])] == max(radii.values())


def test_the_model_is_left_as_it_was_found():
    model = net().train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    shadow(model, images(1), torch.tensor([1]), sigma=0.2, constants=FEW)
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_no_images_are_no_trouble():
    empty = torch.zeros(0, dtype=torch.int64)
    assert shadow(net(), images(0), empty, sigma=0.2).shape == (0, 3, 6, 6)
    assert len(spoof(net(), images(0), empty, sigma=0.2, n=100).certificates) == 0


def test_the_published_constants_are_those_of_the_released_code():
    scripts, function, art = (PUBLISHED[name] for name in ("scripts", "function", "art"))
    assert (scripts.tv, scripts.color, scripts.dissimilarity) == (0.3, 1.0, 0.5)
    assert (function.tv, function.color, function.dissimilarity) == (0.1, 20.0, 10.0)
    assert (art.tv, art.color, art.dissimilarity, art.step_size) == (0.3, 1.0, 0.5, 0.1)
    assert {c.steps for c in PUBLISHED.values()} == {300}
    assert scripts.draws == function.draws == art.draws == 400
    assert [c.one_channel for c in (scripts, function, art)] == [True, False, False]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"sigma": -0.1}, "sigma must be a number of at least 0"),
        ({"target": torch.tensor([1, 9])}, "targets must lie in"),
        ({"target": torch.tensor([1])}, "targets must have shape"),
        ({"x": images(2) + 1}, r"pixels must lie in \[0, 1\]"),
        ({"chunk": 0}, "chunk must be"),
        ({"ids": torch.tensor([0])}, "ids must have shape"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_words(knobs, said):
    with pytest.raises(ValueError, match=said):
        shadow(net(), **{"x": images(2), "target": torch.tensor([1, 2]), "sigma": 0.2, "constants": FEW, **knobs})


@pytest.mark.bad_input
def test_constants_and_spoofs_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="tv must be a finite number"):
        ShadowConstants(tv=-1.0)
    with pytest.raises(ValueError, match="draws must be"):
        ShadowConstants(draws=0)
    with pytest.raises(NonFiniteOutput, match="smaller step_size"):
        shadow(net(), images(1), torch.tensor([1]), sigma=0.2, constants=replace(FEW, tv=1e30, steps=40))
    with pytest.raises(ValueError, match="no other class to aim at"):
        spoof(net(), images(1), torch.tensor([1]), sigma=0.2, n=100, targets=[1])
    with pytest.raises(ValueError, match="n = 5 samples can certify nothing"):
        spoof(net(), images(1), torch.tensor([1]), sigma=0.2, n=5)
