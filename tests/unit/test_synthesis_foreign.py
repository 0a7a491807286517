"""Synthesis with networks, tensors and callers as they come: compiled, in parallel, with graphs, with odd layers."""

from __future__ import annotations

import re
import warnings
from contextlib import nullcontext

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from thesis_kit import inversion
from thesis_kit.evaluation import synthesized
from thesis_kit.models import Classifier
from thesis_kit.synthesis import (
    LOGITS,
    Blur,
    ColorShift,
    Ensemble,
    Fourier,
    Phases,
    Pixels,
    Stage,
    activations,
    batchnorm_statistics,
    channel,
    cross_entropy,
    direction,
    layer,
    mean_spectrum,
    preview,
    synthesize,
    total_variation,
)
from thesis_kit.training import GradientGap


def network() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()


def made(model: nn.Module, objective=None, **knobs):
    settings = {"stages": Stage(6, 2), "progress": False, **knobs}
    return synthesize(model, objective or cross_entropy([0, 1]), **settings)


def images(n: int = 2, size: int = 6) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


# Sides of one pixel


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 1), (2, 2)])
def test_total_variation_counts_the_neighbors_there_are(size):
    x = torch.rand(2, 3, 3, *size)
    for form in ("planes", "squares"):
        value = total_variation(form)({"images": x}, torch.arange(2))
        assert torch.isfinite(value).all()
        assert (value > 0).all() == (size != (1, 1))
    expected = torch.zeros(2)
    for axis in (3, 4):
        if x.shape[axis] > 1:
            expected += x.diff(dim=axis).square().mean(dim=(2, 3, 4)).mean(dim=1)
    assert torch.allclose(total_variation("squares")({"images": x}, torch.arange(2)), expected)


EVEN = [(1, 2), (2, 2), (1, 8)]
SIZES = [((1, 1), Pixels()), ((2, 1), Pixels())]
SIZES += [(size, form) for size in EVEN for form in (Pixels(), Fourier(), Phases(mean_spectrum(images())))]


@pytest.mark.parametrize(("size", "parametrization"), SIZES)
@pytest.mark.parametrize("form", ["planes", "squares"])
def test_images_of_one_pixel_can_be_made(size, form, parametrization):
    objective = cross_entropy([0, 1]) + total_variation(form)
    found = made(network(), objective, stages=Stage(size, 2), parametrization=parametrization)
    assert torch.isfinite(found.losses).all()
    assert torch.isfinite(synthesized.high_frequency_share(found.images)).all()


def test_a_line_is_blurred_along_itself():
    x = torch.zeros(1, 3, 1, 9)
    x[..., 4] = 1.0
    blurred = preview(x, [Blur(1.0)])[0, 0, 0, 0]
    assert torch.allclose(blurred.sum(), torch.tensor(1.0))
    assert blurred[4] < 0.5
    assert torch.equal(preview(x.transpose(2, 3), [Blur(1.0)])[0, 0, 0, :, 0], blurred)


# Layers that an evaluation pass does not reach


class Auxiliary(nn.Module):
    """A head for training alone, a normalization of tokens, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.side = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(3))
        self.stem, self.shared = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.tokens, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        aside = self.side(x) if self.training else None
        z = self.shared(self.shared(self.stem(x)))
        z = z.flatten(2).transpose(1, 2)  # (n, t, c)
        z = self.tokens(z.flatten(0, 1)).reshape_as(z)
        logits = self.head(z.mean(dim=1))
        return (logits, aside) if self.training else logits


def trained_auxiliary() -> Auxiliary:
    torch.manual_seed(0)
    model = Auxiliary()
    for _ in range(3):
        model(torch.rand(8, 3, 6, 6))
    return model.eval()


def statistics_of(features: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Of (positions, c)."""
    gap = (features.mean(dim=0) - norm.running_mean).norm()
    return gap + (features.var(dim=0, correction=0) - norm.running_var).norm()


def test_statistics_are_of_what_an_evaluation_pass_reaches():
    model, x = trained_auxiliary(), images()
    found = made(model, batchnorm_statistics(model), targets=2, start=x, stages=Stage(6, 1))
    with torch.no_grad():
        stem = model.stem(x)
        tokens = model.shared(model.shared(stem)).flatten(2).transpose(1, 2)
        for i in range(2):
            expected = 10 * statistics_of(stem[i].flatten(1).T, model.shared) + statistics_of(tokens[i], model.tokens)
            assert found.losses[0, i] == pytest.approx(expected.item(), rel=1e-4)
    assert model.side[1].num_batches_tracked == 3


@pytest.mark.parametrize("invert", [inversion.plug_in_inversion, inversion.invert_with_penalties])
def test_both_inversions_take_networks_with_auxiliary_heads(invert):
    model = trained_auxiliary()
    found = invert(model, [0, 1], size=16, steps=1, batchnorm=0.1, progress=False)
    assert torch.isfinite(found.losses).all()


def test_googlenet_is_inverted_with_its_statistics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    found = made(Classifier(model), cross_entropy([0]) + batchnorm_statistics(Classifier(model)), stages=Stage(32, 1))
    assert torch.isfinite(found.losses).all()
    assert model.training


def test_a_model_whose_normalizations_are_all_aside_is_one_sentence():
    model = trained_auxiliary()
    model.shared, model.tokens = nn.Identity(), nn.Identity()
    with pytest.raises(ValueError, match="in evaluation mode reaches none of the model's BatchNorm layers"):
        made(model, cross_entropy([0, 1]) + batchnorm_statistics(model))


def test_a_layer_that_is_asked_for_must_be_reached_even_where_statistics_need_it_not():
    model = trained_auxiliary()
    needed = batchnorm_statistics(model) + channel("side.1", [0, 1])
    with pytest.raises(ValueError, match=r"never reaches side\.1$"):
        made(model, needed)
    assert (needed + 2 * needed).optional == needed.optional


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_every_kind_of_batch_normalization_counts(kind):
    model = network()
    model[1] = kind(4).eval()
    found = made(model, batchnorm_statistics(model), targets=2, start=images(), stages=Stage(6, 1))
    features = model[0](images())
    expected = 10 * statistics_of(features[0].flatten(1).T, model[1])
    assert found.losses[0, 0] == pytest.approx(expected.item(), rel=1e-4)


def test_volumes_are_normalized_too():
    class Volume(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm3d(1), nn.Linear(108, 3)

        def forward(self, x):
            return self.head(self.norm(x[:, None]).flatten(1))

    found = made(Volume(), batchnorm_statistics(volume := Volume()), targets=2, start=images(), stages=Stage(6, 1))
    expected = 10 * statistics_of(images()[0].flatten()[:, None], volume.norm)
    assert found.losses[0, 0] == pytest.approx(expected.item(), rel=1e-4)


def test_a_layer_whose_rows_are_no_images_is_one_sentence():
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=8, num_heads=(1, 1, 1, 1),
                              depths=(1, 1, 1, 1), num_classes=3)  # fmt: skip
    said = r"layers.0.blocks.0.attn.qkv gives (8, 49, 24) for 2 images, and its first dimension must be the images"
    with pytest.raises(ValueError, match=re.escape(said)):
        made(model, -channel("layers.0.blocks.0.attn.qkv", [0, 1]), stages=Stage(56, 1))


# Tensors with a graph, or made in inference mode


def with_graph(x: torch.Tensor) -> torch.Tensor:
    return x.clone().requires_grad_() * 1.0


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.clone().requires_grad_()


def inferred(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return x.clone()


FORMS = [leaf, with_graph, inferred]


def plain_tensor(x: torch.Tensor) -> bool:
    return x.is_leaf and not x.requires_grad and not x.is_inference()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parametrization", [Pixels(), Fourier(), Phases(mean_spectrum(images()))])
def test_images_to_start_from_leave_no_graph(form, parametrization, tmp_path):
    knobs = {"parametrization": parametrization, "snapshot_every": 1}
    expected = made(network(), start=images(), **knobs)
    found = made(network(), start=form(images()), checkpoint=tmp_path / "synthesis", **knobs)
    assert torch.equal(found.images, expected.images)
    assert all(plain_tensor(x) for x in (found.images, found.losses, *(kept for _, kept in found.snapshots)))


@pytest.mark.parametrize("form", FORMS)
def test_vectors_spectra_and_numbers_may_come_from_anywhere(form):
    vectors, spectrum = torch.eye(4)[:2], mean_spectrum(images())
    expected = made(network(), -direction("0", vectors), parametrization=Phases(spectrum))
    found = made(network(), -direction("0", form(vectors)), parametrization=Phases(form(spectrum)))
    assert torch.equal(found.images, expected.images)
    assert plain_tensor(found.images)
    assert plain_tensor(mean_spectrum(form(images())))
    with torch.inference_mode():
        inside = -direction("0", vectors.clone())
    assert torch.equal(made(network(), inside, parametrization=Phases(spectrum)).images, expected.images)


@pytest.mark.bad_input
def test_classes_may_be_a_tensor_made_in_inference_mode():
    with torch.inference_mode():
        objective = cross_entropy(torch.tensor([0, 1])) - channel("0", torch.tensor([2, 3]))
    expected = made(network(), cross_entropy([0, 1]) - channel("0", [2, 3]))
    assert torch.equal(made(network(), objective).images, expected.images)


@pytest.mark.parametrize("form", FORMS)
def test_activations_and_previews_leave_no_graph(form):
    x, model = images(), network()
    seen = activations(model, ["0", "input of 5", LOGITS], form(x))
    assert all(plain_tensor(value) for value in seen.values())
    assert torch.equal(seen[LOGITS], model(x))
    assert plain_tensor(preview(form(x), [Ensemble(2), ColorShift()]))


def test_a_layer_that_gives_its_parameter_leaves_no_graph():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.rand(2, 3))

        def forward(self, x):
            return self.table

    model = nn.Sequential(Constant())
    assert plain_tensor(activations(model, "0", images())["0"])


# The caller's gradient state and the model's mode


@pytest.mark.parametrize("state", [nullcontext, torch.no_grad])
def test_the_callers_gradient_state_does_not_matter(state):
    model = network()
    expected = made(model), activations(model, "0", images())["0"]
    inverted = inversion.invert_with_penalties(model, [0], size=6, steps=2, progress=False)
    pii = inversion.plug_in_inversion(model, [0], size=16, steps=1, copies=2, progress=False)
    with state():
        assert torch.equal(made(model).images, expected[0].images)
        assert torch.equal(activations(model, "0", images())["0"], expected[1])
        again = inversion.invert_with_penalties(model, [0], size=6, steps=2, progress=False)
        assert torch.equal(again.images, inverted.images)
        again = inversion.plug_in_inversion(model, [0], size=16, steps=1, copies=2, progress=False)
        assert torch.equal(again.images, pii.images)
        assert torch.is_grad_enabled() == (state is nullcontext)


def test_inference_mode_is_one_sentence_where_gradients_are_needed():
    with torch.inference_mode():
        model = network()
        asked = [
            lambda: made(network()),
            lambda: inversion.plug_in_inversion(network(), [0], size=16, steps=1, progress=False),
            lambda: inversion.invert_with_penalties(network(), [0], size=16, steps=1, progress=False),
        ]
        for ask in asked:
            with pytest.raises(ValueError, match=r"synthesis needs gradients, which torch.inference_mode\(\) forbids"):
                ask()
        seen = activations(model, "0", images())["0"]
    assert torch.equal(seen, network()[0](images()))
    with pytest.raises(ValueError, match=r"synthesis needs gradients, and the model was made inside torch.inference"):
        made(model)


class Counting(nn.Module):
    """Counts its passes in a buffer, and writes into its input."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.inner(x.mul_(2).sub_(1))


def test_mode_flags_and_buffers_come_back_and_a_checkpoint_is_known_again(tmp_path):
    model = Counting(network())
    model.train()
    model.inner[0].eval()
    model.inner[5].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = made(model, checkpoint=tmp_path / "state")
    assert torch.equal(made(model, checkpoint=tmp_path / "state").images, first.images)
    x = images()
    seen = activations(model, ["inner.1", LOGITS], x)
    assert torch.equal(x, images())
    assert torch.equal(seen[LOGITS], model.inner.eval()(2 * x - 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert not model.inner[5].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())


# Wrapped models


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compiled_inside(model: nn.Module) -> nn.Module:
    return Classifier(torch.compile(model, backend="eager"))


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler's own, which it hides
@pytest.mark.parametrize("wrap", [compiled, compiled_inside, compiled_in_place, nn.DataParallel])
def test_compiled_and_parallel_models_do_as_the_plain_one(wrap):
    x, plain = images(), network()
    expected = made(plain), made(plain, -channel("2", [0, 1])), made(plain, layer("1"), targets=2)
    seen = activations(plain, ["2", LOGITS], x)
    model = wrap(network())
    with torch.no_grad():
        model(x)  # compiled before anyone looks inside
    found = made(model), made(model, -channel("2", [0, 1])), made(model, layer("1"), targets=2)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.images, other.images, atol=1e-6)
    for name, value in activations(model, ["2", LOGITS], x).items():
        assert torch.allclose(value, seen[name], atol=1e-6)
    with_statistics = made(model, batchnorm_statistics(model), targets=2)
    assert torch.allclose(with_statistics.images, made(plain, batchnorm_statistics(plain), targets=2).images, atol=1e-6)
    inverted = inversion.plug_in_inversion(model, [0], size=16, steps=1, copies=2, progress=False)
    own = inversion.plug_in_inversion(plain, [0], size=16, steps=1, copies=2, progress=False)
    assert torch.allclose(inverted.images, own.images, atol=1e-6)


def test_activations_of_a_plain_function():
    model = network()
    assert torch.equal(activations(lambda x: model(x), LOGITS, images())[LOGITS], model(images()))


# Attention


def small_vit(fused: bool) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model.eval()


def test_a_fused_attention_map_is_named_with_its_switch():
    x = images(size=32)
    said = r"never reaches blocks.0.attn.attn_drop under fused attention, .*set_fused_attn\(False\), or set TIMM_FUSED_"
    for model in (small_vit(True), Classifier(small_vit(True))):
        with pytest.raises(ValueError, match=said):
            activations(model, "blocks.0.attn.attn_drop", x)
        with pytest.raises(ValueError, match=said):
            made(model, layer("blocks.0.attn.attn_drop"), targets=2, stages=Stage(32, 1))
    maps = activations(small_vit(False), "blocks.0.attn.attn_drop", x)["blocks.0.attn.attn_drop"]
    assert maps.shape == (2, 3, 5, 5)
    assert torch.allclose(maps.sum(dim=-1), torch.ones(2, 3, 5), atol=1e-5)


def test_the_gradient_gap_of_a_fused_transformer_has_a_gradient():
    x, y, gradients = images(size=32), torch.tensor([0, 1]), []
    for fused in (True, False):
        model = small_vit(fused)
        GradientGap(1.0)(model, x, y, model(x)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(*gradients, atol=1e-4, rtol=1e-3)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.allclose(small_vit(True)(x), small_vit(False)(x), atol=1e-5)
