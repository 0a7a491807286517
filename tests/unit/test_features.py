"""Units: where they fire, what excites them, and the triple with its controls, against planted truth."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thesis_kit import features, recording, synthesis
from thesis_kit.checks import UnknownName
from thesis_kit.models import Classifier
from thesis_kit.show import unit_pictures

SIDE = 16
QUICK = {"steps": 2, "copies": 2}


def vit(**knobs) -> nn.Module:
    torch.manual_seed(0)
    tiny = {"img_size": SIDE, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **tiny, **knobs).eval()


def images(n: int = 6, size: int = SIDE) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


class Planted(nn.Module):
    """Unit 0 is red minus green, unit 1 blue at every pixel, unit 2 is dead; behind a ReLU where one is asked for."""

    def __init__(self, rectified: bool = False):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.rectified = rectified
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, -1, 0], [0, 0, 1], [0, 0, 0]])[..., None, None])
            self.layer.bias.copy_(torch.tensor([0.0, 0, -1]))
        self.out = nn.ReLU() if rectified else nn.Identity()

    def forward(self, x):
        return self.out(self.layer(x)).flatten(2).mean(dim=2)


# Where units fire


def test_maps_are_the_patches_of_what_is_recorded():
    model, x = vit(), images()
    found = features.maps(model, x, "blocks.1.hidden", [3, 7])
    seen = recording.record(model, x, "blocks.1.hidden")["blocks.1.hidden"]
    assert found.shape == (6, 2, 4, 4)
    assert torch.equal(found[:, 1, 2, 3], seen[:, 1 + 2 * 4 + 3, 7])  # behind the class token, row by row
    assert torch.equal(features.maps(model, x, "blocks.1.hidden")[:, [3, 7]], found)


def test_a_direction_is_the_sum_of_its_units():
    model, x = vit(), images()
    both = features.maps(model, x, "blocks.0.q", torch.tensor([[2.0, 0, -1] + [0.0] * 9]))
    units = features.maps(model, x, "blocks.0.q", [0, 2])
    torch.testing.assert_close(both[:, 0], 2 * units[:, 0] - units[:, 1])


def test_strongest_images_of_directions_along_the_axes_are_those_of_units():
    model, x = vit(), images(20)
    axes = torch.eye(48)[[5, 9]]
    for pool in ("mean", "max", "class"):
        knobs = {"k": 3, "patterns": True, "pool": pool}
        units = recording.top_examples(model, x, "blocks.1.hidden", units=[5, 9], **knobs)
        rows = recording.top_examples(model, x, "blocks.1.hidden", units=axes, **knobs)
        assert torch.equal(rows.index, units.index)
        torch.testing.assert_close(rows.value, units.value)
        torch.testing.assert_close(rows.pattern, units.pattern)


# What excites them


def test_an_excitation_is_the_mean_over_patches_and_copies():
    model, x = vit(), images(4)
    objective = features.excitation(model, "blocks.1.hidden", [3, 7])
    seen = recording.record(model, x, "blocks.1.hidden")["blocks.1.hidden"].unflatten(0, (2, 2))
    value = objective({"blocks.1.hidden": seen}, torch.tensor([1, 0]))
    found = features.maps(model, x, "blocks.1.hidden").mean(dim=(2, 3))
    torch.testing.assert_close(value, torch.stack([found[:2, 7].mean(), found[2:, 3].mean()]))
    total = features.excitation(model, "blocks.1.hidden", [3, 7], over="sum")
    torch.testing.assert_close(total({"blocks.1.hidden": seen}, torch.tensor([1, 0])), 16 * value)


@pytest.mark.parametrize(("method", "steps"), [("paper", 40), ("code", 40), ("fourier", 200)])
def test_the_optimum_of_a_planted_unit_is_the_planted_one(method, steps):
    found = features.visualize(Planted(), "layer", [0, 1], method=method, size=8, steps=steps, copies=2, tv=0.0)
    red, green, blue = found.images.mean(dim=(2, 3)).T
    assert red[0] > 0.7
    assert green[0] < 0.3
    assert blue[1] > 0.8
    assert (found.losses[-1] < found.losses[0]).all()


def test_maco_keeps_the_spectrum_of_real_images():
    real = images(30, 8)
    found = features.visualize(Planted(), "layer", [0], method="maco", size=8, steps=3, copies=2, images=real)
    assert found.images.shape == (1, 3, 8, 8)
    torch.testing.assert_close(found.images.mean(dim=(2, 3))[0], real.mean(dim=(0, 2, 3)), atol=0.1, rtol=0)
    with pytest.raises(ValueError, match="give images"):
        features.visualize(Planted(), "layer", [0], method="maco", size=8)


def test_directions_are_excited_as_units_are():
    model = Planted()
    axis = torch.tensor([[0.0, 1.0, 0.0]])
    one, other = (features.visualize(model, "layer", units, size=8, **QUICK) for units in ([1], axis))
    torch.testing.assert_close(one.images, other.images)


def test_a_unit_does_not_depend_on_its_neighbors():
    model = vit()
    both = features.visualize(model, "blocks.0.hidden", [3, 4], **QUICK)
    alone = features.visualize(model, "blocks.0.hidden", [4], ids=[1], **QUICK)
    torch.testing.assert_close(both.images[1:], alone.images, atol=1e-4, rtol=0)


# Controls


def test_a_rotation_is_orthonormal_and_its_first_rows_are_those_of_fewer():
    rows = features.rotation(20, seed=3)
    torch.testing.assert_close(rows @ rows.T, torch.eye(20), atol=1e-5, rtol=0)
    assert features.rotation(20, 4, seed=3).shape == (4, 20)
    a = torch.randn(50, 20)
    torch.testing.assert_close(features.rotated(a, 3).norm(dim=1), a.norm(dim=1))
    assert not torch.equal(features.rotation(20, seed=3), features.rotation(20, seed=4))


def test_a_random_twin_shares_nothing_and_has_no_memory_of_training():
    model = vit()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(7.0)  # what "training" has left
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    twin, again = (features.random_twin(model, seed=1) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in twin.state_dict().items():
        assert value.abs().max() < 6, name
        assert torch.equal(value, again.state_dict()[name])
    assert twin.pos_embed.std().item() == pytest.approx(0.02, rel=0.3)


# The triple


def test_a_triple_is_the_optimum_the_strongest_images_and_their_maps():
    model, x = vit(), images(12)
    found = features.triples(model, x, "blocks.1.hidden", [3, 7], strongest=2, **QUICK)
    optima = features.visualize(model, "blocks.1.hidden", [3, 7], **QUICK)
    top = recording.top_examples(model, x, "blocks.1.hidden", 2, units=[3, 7])
    assert torch.equal(found.optima, optima.images)
    assert torch.equal(found.index, top.index)
    assert torch.equal(found.images[1, 0], x[top.index[1, 0]])
    torch.testing.assert_close(found.maps.mean(dim=(2, 3)), found.value)
    at = features.maps(model, optima.images, "blocks.1.hidden", [3, 7]).mean(dim=(2, 3)).diagonal()
    torch.testing.assert_close(found.optimum_value, at)
    assert found.names == ("unit 3", "unit 7")
    assert [len(part) for part in found.rows] == [2, 2, 2]
    assert found.rotated.names[0] == "random direction 1"
    assert not torch.equal(found.untrained.optima, found.optima)


def test_controls_can_be_declined_or_be_fewer():
    model, x = vit(), images(4)
    assert len(features.triples(model, x, "blocks.0.k", [1], controls=0, **QUICK).rows) == 1
    assert len(features.triples(model, x, "blocks.0.k", [1, 2], controls=1, **QUICK).rotated) == 1


# What cannot be meant


def test_more_controls_than_units_are_made_of_others_of_the_layer():
    model, x = vit(), images(4)
    found = features.triples(model, x, "blocks.0.k", [1], controls=3, **QUICK)
    assert [len(part) for part in found.rows] == [1, 3, 3]
    assert found.untrained.names == tuple(f"random weights, unit {unit}" for unit in (1, 0, 2))
    found = features.triples(model, x, "blocks.0.k", torch.eye(12)[:1], controls=2, **QUICK)
    assert [len(part) for part in found.rows] == [1, 2, 2]


def test_optima_are_asked_about_a_batch_at_a_time():
    model, x = vit(), images(4)
    sizes: list[int] = []
    model.patch_embed.register_forward_hook(lambda module, seen, out: sizes.append(len(out)))
    few = features.triples(model, x, "blocks.0.k", range(9), controls=0, batch_size=1, batch=1, steps=1, copies=1)
    assert 9 not in sizes
    many = features.triples(model, x, "blocks.0.k", range(9), controls=0, steps=1, copies=1)
    assert 9 in sizes
    torch.testing.assert_close(few.optimum_value, many.optimum_value)


def test_what_another_method_takes_is_refused():
    with pytest.raises(ValueError, match="fourier has no total variation: leave tv out, or take a method of paper"):
        features.visualize(vit(), "blocks.0.k", [0], method="fourier", tv=1.0)
    with pytest.raises(ValueError, match="paper takes no images: leave them out"):
        features.visualize(vit(), "blocks.0.k", [0], images=images())


def test_a_dead_unit_is_refused_and_named_among_others():
    dead = r"units of out: 1 of 1 have no gradient .* such as number 0"
    with pytest.warns(UserWarning, match="has no gradient at the start"), pytest.raises(ValueError, match=dead):
        features.visualize(Planted(rectified=True), "out", [2], size=8, tv=0.0, **QUICK)
    with pytest.warns(UserWarning, match="1 of 2 have no gradient .* such as number 1"):
        features.visualize(Planted(rectified=True), "out", [1, 2], size=8, tv=1.0, **QUICK)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"units": [48]}, r"must be numbers in \[0, 47\], at least one, got \[48\]$"),  # once, not once a copy
        ({"units": []}, "at least one"),
        ({"units": torch.ones(1, 5)}, r"finite rows \(k, 48\)"),
        ({"units": torch.zeros(1, 48)}, "none of them zero"),
        ({"site": "blocks.1.hiden"}, "did you mean blocks.1.hidden"),
        ({"method": "codes"}, "did you mean code"),
        ({"size": 1}, "size must be a whole number of at least 2"),
        ({"size": 0}, "size must be a whole number of at least 2, got 0"),
        ({"method": "code", "copies": 0}, "copies must be a whole number of at least 1, got 0"),
        ({"tv": "x"}, "tv must be a finite number of at least 0, got x"),
        ({"tv": -1}, "tv must be a finite number of at least 0, got -1"),
        ({"method": "maco", "images": torch.rand(0, 3, SIDE, SIDE)}, "mean spectrum is that of at least one image"),
    ],
)
def test_what_cannot_be_visualized_is_one_sentence(knobs, message):
    given = {"site": "blocks.1.hidden", "units": [0], **QUICK, **knobs}
    with pytest.raises(ValueError, match=message) as caught:
        features.visualize(vit(), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize("site", [None, 3, b"blocks.0.hidden", [], ["blocks.0.hidden", "blocks.1.hidden"]])
def test_units_are_asked_about_at_one_site_by_name(site):
    several = isinstance(site, list) and len(site) > 1
    message = "units are asked about at one site, got 2" if several else "sites are given by their names"
    model, x = vit(), images(2)
    for call in (
        lambda: features.maps(model, x, site),
        lambda: features.excitation(model, site, [0]),
        lambda: features.visualize(model, site, [0], **QUICK),
        lambda: features.triples(model, x, site, [0], **QUICK),
        lambda: recording.top_examples(model, x, site, 1),
    ):
        with pytest.raises(ValueError if several else TypeError, match=message):
            call()


@pytest.mark.bad_input
def test_arguments_of_triples_are_looked_at_first():
    for units in ("0-3", {1, 2}, None):
        with pytest.raises(ValueError, match=r"units are whole numbers \(k,\) or directions \(k, u\)"):
            features.triples(vit(), images(2), "blocks.0.hidden", units, **QUICK)
    for controls in (-1, True, 1.5):
        with pytest.raises(ValueError, match="controls must be a whole number of at least 0"):
            features.triples(vit(), images(2), "blocks.0.hidden", [0], controls=controls, **QUICK)
    with pytest.raises(TypeError, match="checkpoint must be the path of a file, got 3"):
        features.visualize(vit(), "blocks.0.hidden", [0], checkpoint=3, **QUICK)
    with pytest.raises(ValueError, match=r"the model cannot take images of shape \(1, 16, 16\)"):
        features.maps(vit(), images(2)[:, :1], "blocks.0.hidden")


@pytest.mark.bad_input
def test_attention_in_windows_has_no_units_of_q():
    model = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1), num_heads=(2, 4))
    with pytest.raises(ValueError, match="works in windows"):
        features.maps(model, images(1, 224), "layers.0.blocks.0.q")


def test_a_size_that_nobody_says_is_asked_for():
    with pytest.raises(ValueError, match="give size, in pixels"):
        features.visualize(Planted(), "layer", [0])
    assert features.visualize(Classifier(Planted(), size=8), "layer", [0], **QUICK).images.shape[-1] == 8


def test_fewer_images_than_strongest_and_sites_without_patches_are_refused():
    with pytest.raises(ValueError, match="the data hold 3 inputs and k is 4"):
        features.triples(vit(), images(3), "blocks.0.hidden", [0], **QUICK)
    with pytest.raises(ValueError, match="no patches that form a grid"):
        features.triples(vit(), images(4), "penultimate", [0], **QUICK)
    with pytest.raises(UnknownName, match=r"blocks\.0\.hidden"):
        features.triples(vit(), images(4), "blocks.0.hid", [0], **QUICK)


def test_models_are_left_as_they_were():
    model = vit().train()
    features.visualize(model, "blocks.0.hidden", [0], **QUICK)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_pass_ends_at_the_site():
    model = vit()
    model.blocks[1].forward = lambda x: pytest.fail("the second block was run")
    assert isinstance(features.visualize(model, "blocks.0.hidden", [0], **QUICK), synthesis.Synthesis)


# Pictures


def test_a_lit_image_is_bright_where_the_unit_fires():
    image = torch.ones(3, 8, 8)
    seen = unit_pictures.lit(image, torch.tensor([[1.0, 3.0], [2.0, 1.0]]))
    assert torch.equal(seen[:, :4, 4:], image[:, :4, 4:])
    assert seen[0, 0, 0] == 0.25
    assert seen[0, 7, 0] == pytest.approx(0.625)
    assert torch.equal(unit_pictures.lit(image, torch.full((2, 2), 5.0)), image)


def test_a_figure_of_units_has_a_row_each_and_the_controls_below():
    model, x = vit(), images(4)
    found = features.triples(model, x, "blocks.0.hidden", [1, 2], strongest=2, controls=1, **QUICK)
    shown = unit_pictures.triples_figure(found, label="Figure 5.1", caption="Units.", alt="Two units and controls.")
    assert shown.html.count("<img") == 4 * 5
    names = [*found.names, *found.rotated.names, *found.untrained.names]
    assert [name for name in names if f">{name}<" in shown.html] == names
    sheet = unit_pictures.triples_sheet(found, scale=2)
    assert sheet.size == (5 * (32 + 2) - 2, 4 * (32 + 2) - 2)
