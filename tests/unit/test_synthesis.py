"""The synthesis engine: targets that do not touch one another, stages, resuming, objectives, and what is refused."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit import synthesis
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.files.tensors import read_tensors
from thesis_kit.models import Classifier
from thesis_kit.randomness import ImageRandom
from thesis_kit.recording.watching import Watcher
from thesis_kit.synthesis import Adam, ColorShift, Ensemble, Fourier, Jitter, Moment, Phases, Pixels, Stage, synthesize
from thesis_kit.synthesis.augmentations import augment

STAGES = [Stage(8, 4), Stage(12, 4, border=2)]
AUGMENTATIONS = [Jitter(2), Ensemble(3), ColorShift(0.5, 0.5)]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Classifier(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        )
    )  # fmt: skip


def made(network, classes=(0, 1, 2, 3), **knobs):
    knobs = {"stages": STAGES, "augmentations": AUGMENTATIONS, "optimizer": Adam(0.05), "progress": False, **knobs}
    return synthesize(network, synthesis.cross_entropy(classes), **knobs)


def moment(n=2, step=0, progress=0.0):
    return Moment(ImageRandom(step, torch.arange(n)), ImageRandom(99, torch.arange(n)), progress)


# --- the loop


def test_a_result_has_the_last_stages_size_and_every_loss(network):
    found = made(network)
    assert found.images.shape == (4, 3, 12, 12)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.losses.shape == (8, 4)
    assert [(step, images.shape[-1]) for step, images in found.snapshots] == [(4, 8), (8, 12)]
    assert found.passes.forward_images == found.passes.backward_images == 8 * 4 * 3
    first = f"{found.losses[0].mean():.3g}"
    assert re.match(rf"4 inputs of 3 × 12 × 12 after 8 steps: mean loss {first} at first, .* 96 copies", str(found))


def test_an_objective_is_made_small(network):
    found = made(network, stages=[Stage(12, 30)], augmentations=[])
    assert (found.losses.diff(dim=0)[:20] < 0).all()


@pytest.mark.parametrize("batch", [3, 6, 1000])
def test_a_target_does_not_depend_on_its_neighbors_or_the_batch(network, batch):
    together, alone = made(network, batch=batch), made(network, [2], ids=[2])
    torch.testing.assert_close(together.images[2], alone.images[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.losses[:, 2], alone.losses[:, 0], rtol=1e-4, atol=1e-5)


def test_targets_of_one_class_differ_and_seeds_differ(network):
    twice = made(network, [1, 1])
    assert not torch.equal(twice.images[0], twice.images[1])
    assert not torch.equal(twice.images, made(network, [1, 1], seed=1).images)
    assert torch.equal(twice.images, made(network, [1, 1]).images)


def test_the_network_is_left_as_found_and_meets_no_training_mode(network):
    network.train()
    network.network[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made(network)
    assert all(module.training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()] == [False] + [True] * (len(list(network.parameters())) - 1)
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_stage_lays_the_last_images_into_fresh_noise(network):
    """With a learning rate of next to nothing the middle of a stage is the enlarged image of the one before."""
    found = made(network, [0], optimizer=Adam(1e-9), augmentations=[])
    small, large = (images for _, images in found.snapshots)
    middle = nn.functional.interpolate(small, (10, 10), mode="bilinear")
    torch.testing.assert_close(large[..., 1:11, 1:11], middle, rtol=0, atol=1e-6)
    border = torch.ones(12, 12, dtype=torch.bool)
    border[1:11, 1:11] = False
    assert large[0, :, border].std() == pytest.approx(1 / math.sqrt(12), abs=0.08)  # uniform noise


def test_a_killed_synthesis_goes_on_as_if_unbroken(network, tmp_path, monkeypatch):
    whole, path = made(network, batch=6), tmp_path / "synthesis.ckpt"

    class Killed(Exception):
        pass

    from thesis_kit.synthesis import descent

    real, calls = descent._descend, []

    def counted(*args):
        calls.append(None)
        if len(calls) in (3, 9):
            raise Killed
        return real(*args)

    monkeypatch.setattr(descent, "_descend", counted)
    for _ in range(2):
        with pytest.raises(Killed):
            made(network, batch=6, checkpoint=path, checkpoint_seconds=0)
    resumed = made(network, batch=6, checkpoint=path, checkpoint_seconds=0)
    assert torch.equal(resumed.images, whole.images)
    assert torch.equal(resumed.losses, whole.losses)
    assert resumed.passes == whole.passes
    assert len(calls) == 16 + 2  # eight steps of two chunks; the two that were killed were tried again
    with pytest.raises(ValueError, match="checkpoint of another synthesis"):
        made(network, batch=6, checkpoint=path, seed=5)


def changed_statistics(network):
    network.network[1].running_mean += 1
    return {}


def swapped_weights(network):
    weight = network.network[0].weight
    weight.data = weight.data.flip(0)  # the same numbers at other places
    return {}


@pytest.mark.parametrize(
    "changed",
    [
        lambda network: {"classes": [1, 0]},
        lambda network: {"seed": 5},
        lambda network: {"batch": 3},
        lambda network: {"parametrization": Fourier(decay=0.5)},
        lambda network: {"start": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).flip(-1)},
        changed_statistics,
        swapped_weights,
    ],
    ids=["classes", "seed", "batch", "parametrization", "start", "statistics", "weights"],
)
def test_a_checkpoint_belongs_to_one_synthesis(network, tmp_path, changed):
    start = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    asked = {"classes": [0, 1], "checkpoint": tmp_path / "synthesis.ckpt", "parametrization": Fourier(), "start": start}
    whole = made(network, **asked)
    assert torch.equal(made(network, **asked).images, whole.images)
    with pytest.raises(ValueError, match=r"is the checkpoint of another synthesis \(.* was .*, is .*\): remove"):
        made(network, **{**asked, **changed(network)})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (synthesis.channel("a", [1]), synthesis.channel("a", [2])),
        (synthesis.channel("a", [1]), synthesis.channel("a", [1], channels_last=True)),
        (synthesis.neuron("a", [1]), synthesis.neuron("a", [1], 3)),
        (synthesis.direction("a", torch.eye(2)), synthesis.direction("a", torch.eye(2).flip(0))),
        (synthesis.logit([1]), synthesis.logit([2])),
        (synthesis.total_variation(), synthesis.total_variation("squares")),
        (1e-7 * synthesis.l2(), 1.00000001e-7 * synthesis.l2()),
        (synthesis.layer("a") + synthesis.layer("b"), synthesis.layer("a") - synthesis.layer("b")),
    ],
)
def test_objectives_that_differ_say_so(one, other):
    assert one.settings != other.settings


def test_spectra_that_differ_say_so():
    spectrum = torch.rand(3, 4, 3)
    assert repr(Phases(spectrum)) == repr(Phases(spectrum.clone())) != repr(Phases(spectrum.flip(1)))


def test_snapshots_on_the_way(network):
    found = made(network, snapshot_every=3)
    assert [step for step, _ in found.snapshots] == [3, 4, 6, 8]
    shorter = made(network, stages=[Stage(8, 4), Stage(12, 4, border=2)][:1], snapshot_every=3)
    assert torch.equal(found.snapshots[0][1], shorter.snapshots[0][1])
    assert not torch.equal(found.snapshots[0][1], found.snapshots[1][1])


def test_a_layer_is_read_before_what_follows_changes_it_in_place():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad(), Watcher(network, ["0", synthesis.LOGITS]).watching() as deep:
        seen = deep(x)["0"]
    with torch.no_grad(), Watcher(network, ["0"]).watching() as shallow:
        assert torch.equal(seen, shallow(x)["0"])
    assert seen.min() < 0


def test_layers_may_keep_their_channels_last():
    activation = torch.randn(2, 1, 5, 7, 3)  # (n, e, h, w, c)
    index, first = torch.arange(2), {"a": activation.movedim(-1, 2)}
    for make in (
        lambda **last: synthesis.channel("a", [2, 0], **last),
        lambda **last: synthesis.neuron("a", [2, 0], (4, 6), **last),
        lambda **last: synthesis.neuron("a", [2, 0], **last),
        lambda **last: synthesis.direction("a", torch.eye(3)[:2], **last),
    ):
        found = make(channels_last=True)({"a": activation}, index)
        torch.testing.assert_close(found, make()(first, index))
    assert synthesis.neuron("a", [2, 0], (4, 6), channels_last=True)({"a": activation}, index)[0] == activation[
        0, 0, 4, 6, 2
    ]  # fmt: skip


def test_a_step_without_a_number_is_counted_through_all_stages(network):
    def failing(x, moment):
        return x * (math.nan if x.shape[-1] == 12 else 1.0)

    with pytest.raises(NonFiniteOutput, match="NaN or infinite at step 5"):
        synthesize(network, -synthesis.channel("0", [0]), stages=STAGES, augmentations=[failing], progress=False)


def test_a_checkpoint_knows_what_is_not_among_the_weights(network, tmp_path):
    path = tmp_path / "synthesis.ckpt"
    other = Classifier(network.network, mean=[0.5] * 3, std=[0.5] * 3)
    smooth = Classifier(nn.Sequential(*(nn.GELU() if isinstance(m, nn.ReLU) else m for m in network.network)))
    made(network, checkpoint=path)
    for changed in (other, smooth, Classifier(network.network, size=16)):
        with pytest.raises(ValueError, match="checkpoint of another synthesis"):
            made(changed, checkpoint=path)


def matching(wanted, **told):
    """An objective of one's own: the distance of the images to something."""
    return synthesis.Objective(
        [synthesis.IMAGES], lambda seen, index: (seen[synthesis.IMAGES] - wanted).square().flatten(1).mean(1), "match",
        targets=2, **told,
    )  # fmt: skip


def test_a_checkpoint_tells_objectives_of_ones_own_apart_or_is_refused(network, tmp_path):
    knobs = {"stages": Stage(8, 4), "optimizer": Adam(0.2), "checkpoint": tmp_path / "match.ckpt", "progress": False}
    dark = synthesize(network, matching(0.0, settings="to 0"), **knobs).images
    assert torch.equal(synthesize(network, matching(0.0, settings="to 0"), **knobs).images, dark)
    with pytest.raises(ValueError, match="checkpoint of another synthesis"):
        synthesize(network, matching(1.0, settings="to 1"), **knobs)
    untold = matching(1.0)
    for objective in (untold, 2 * untold, untold + synthesis.l2(), synthesis.l2() + untold):
        with pytest.raises(ValueError, match=r"match.* does not say what decides its values: give Objective\(settings"):
            synthesize(network, objective, **knobs)
    assert synthesize(network, untold, **{**knobs, "checkpoint": None}).images.mean() > dark.mean()


def test_a_checkpoint_refuses_a_part_that_no_other_process_could_name(network, tmp_path):
    with pytest.raises(ValueError, match=r"<function .*lambda.* has another one in every process: make it a class"):
        made(network, augmentations=lambda x, moment: x, checkpoint=tmp_path / "function.ckpt")
    assert not (tmp_path / "function.ckpt").exists()


def test_a_finished_checkpoint_holds_images_and_losses_and_no_optimizer(network, tmp_path):
    made(network, batch=6, checkpoint=tmp_path / "all.ckpt")
    held = read_tensors(tmp_path / "all.ckpt")["state"]["states"]
    assert len(held) == 2
    for state in held.values():
        assert state["stored"] is None
        assert state["adam"] is None
        assert state["losses"].shape == (8, 2)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("calls", [1, 3, 6])
def test_an_interrupted_synthesis_keeps_every_step_and_says_so(network, tmp_path, monkeypatch, stop, calls):
    """Long before the file is due to be written; with two groups of targets."""
    whole, path, done = made(network, batch=6), tmp_path / "synthesis.ckpt", []
    real = torch.optim.Adam.step

    def interrupted(self, *args):
        done.append(None)
        if len(done) == calls:
            for group in self.param_groups:
                group["params"][0].data.zero_()  # in the middle of a step, nothing is right
            raise stop
        return real(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with pytest.raises(stop) as caught:
        made(network, batch=6, checkpoint=path)
    said = f"{path} keeps {calls - 1} of 16 steps: the same call goes on from there"
    assert getattr(caught.value, "__notes__", []) == [said] * (calls > 1)
    assert [*tmp_path.iterdir()] == [path] * (calls > 1)
    resumed = made(network, batch=6, checkpoint=path)
    assert torch.equal(resumed.images, whole.images)
    assert torch.equal(resumed.losses, whole.losses)
    assert len(done) == 16 + 1


def test_a_resumed_synthesis_says_what_all_runs_took(network, tmp_path):
    path = tmp_path / "synthesis.ckpt"
    first = made(network, checkpoint=path)
    assert made(network, checkpoint=path).seconds == first.seconds > 0


def test_images_are_read_before_a_network_normalizes_them_in_place():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).flatten(1)[:, :2]

    x = torch.rand(2, 3, 4, 4)
    with torch.no_grad(), Watcher(InPlace(), [synthesis.IMAGES, synthesis.LOGITS]).watching() as watcher:
        assert torch.equal(watcher(x.clone())[synthesis.IMAGES], x)


def test_targets_that_normalize_one_another_are_warned_of():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with pytest.warns(UserWarning, match="targets of a pass act on one another"):
        made(network, [0, 1])


def test_images_in_frequencies_start_faint_at_every_size():
    form, random = Fourier(), ImageRandom(0, torch.arange(4))
    for side in (16, 64, 224):
        image = form.image(form.start(random, 3, (side, side), like=torch.zeros(())))
        assert 0.0005 < image.std() < 0.01, side


def test_a_border_that_cannot_be_halved_does_not_drift(network):
    """Seven stages that grow by one pixel each leave the first one's middle in the middle."""
    stages = [Stage(8 + k, 1, border=int(k > 0)) for k in range(7)]
    start = torch.zeros(1, 3, 8, 8)
    start[..., 3:5, 3:5] = 1.0
    found = made(network, [0], stages=stages, start=start, optimizer=Adam(1e-9), augmentations=[]).images
    assert torch.equal(found[..., 6:8, 6:8], torch.ones(1, 3, 2, 2))


def test_shifts_of_color_are_their_formula_and_each_copys_own():
    x = torch.full((2, 3, 3, 1, 1), 0.5)
    multiplied, divided = (ColorShift(1.0, 0.0, form=form)(x, moment()) for form in ("multiply", "divide"))
    torch.testing.assert_close(multiplied - 0.5, 0.5 - divided)  # x + μ and x − μ
    scaled, shrunk = (ColorShift(0.0, 1.0, form=form)(x, moment()) for form in ("multiply", "divide"))
    torch.testing.assert_close(scaled * shrunk, torch.full_like(x, 0.25))  # x σ and x / σ
    assert len(multiplied.unique()) == multiplied.numel()
    rolled = Jitter(3)(torch.rand(2, 3, 1, 8, 8)[:, :1].repeat(1, 4, 1, 1, 1), moment())
    assert not torch.equal(rolled[:, 0], rolled[:, 1])  # behind an ensemble each copy is rolled its own way


def test_objectives_add_up_by_sum():
    both = sum([synthesis.layer("a"), 2 * synthesis.layer("b")])
    seen = {"a": torch.full((1, 1, 3), 2.0), "b": torch.full((1, 1, 3), 3.0)}
    assert both(seen, torch.tensor([0])).tolist() == [4 + 2 * 9]


def test_a_network_in_double_precision_gets_what_it_can_take(network):
    found = made(network.double(), precision="float32")
    torch.testing.assert_close(found.images, made(network.float()).images, rtol=0, atol=1e-4)


def test_out_of_memory_stays_what_it_is(network):
    class Full(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        made(Full())


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("ask", "error", "sentence"),
    [
        (lambda: synthesis.cross_entropy([1.7]), TypeError, "classes must be whole numbers, one a target, got [1.7]"),
        (lambda: synthesis.cross_entropy(3), TypeError, "classes must be whole numbers, one a target, got 3"),
        (lambda: synthesis.cross_entropy("3"), TypeError, "classes must be whole numbers, one a target, got '3'"),
        (lambda: synthesis.logit([[0], [2]]), TypeError, "classes must be whole numbers"),
        (lambda: synthesis.logit(torch.tensor([True, False])), TypeError, "classes must be whole numbers"),
        (lambda: synthesis.channel("a", [0.5]), TypeError, "channels must be whole numbers"),
        (lambda: synthesis.direction("a", torch.ones(8)), ValueError, "rows (targets, c), finite and not zero"),
        (lambda: synthesis.direction("a", torch.zeros(1, 8)), ValueError, "rows (targets, c), finite and not zero"),
        (lambda: synthesis.direction("a", torch.full((1, 8), math.nan)), ValueError, "finite and not zero"),
        (lambda: Adam(math.inf), ValueError, "lr must be a positive, finite number, got inf"),
        (lambda: Adam("0.1"), ValueError, "lr must be a positive, finite number, got '0.1'"),
        (lambda: made("resnet"), TypeError, "images to logits, got 'resnet': tk.build(name) makes one"),
    ],
)
def test_parts_that_cannot_be_meant(ask, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        ask()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("knobs", "error", "sentence"),
    [
        ({"batch": 0}, ValueError, "batch must be a whole number of at least 1, got 0"),
        ({"start": torch.full((4, 3, 8, 8), 5.0)}, ValueError, "pixels must lie in [0, 1], got [5, 5]"),
        ({"start": torch.full((4, 3, 8, 8), math.nan)}, ValueError, "images contain NaN"),
        ({"start": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)}, TypeError, "must be a floating-point tensor"),
    ],
)
def test_calls_that_cannot_be_meant(network, knobs, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        made(network, **knobs)


@pytest.mark.bad_input
def test_an_objective_that_is_none_is_refused(network):
    with pytest.raises(TypeError, match=r"objective must be one of synthesis's, .* got 'cross-entropy'"):
        synthesize(network, "cross-entropy", targets=1, stages=[Stage(8, 1)])


@pytest.mark.bad_input  # numbers of numpy are no int to a type checker
def test_a_single_stage_and_augmentation_need_no_list_and_numbers_may_be_numpys(network):
    knobs = {"seed": 3, "progress": False}
    listed = synthesize(
        network, synthesis.cross_entropy([0, 1]), stages=[Stage(8, 2)], augmentations=[synthesis.Ensemble(2)], batch=2,
        **knobs,
    )  # fmt: skip
    single = synthesize(
        network, synthesis.cross_entropy([0, 1]), stages=Stage(np.int64(8), np.int64(2)),
        augmentations=synthesis.Ensemble(np.int64(2)), batch=np.int64(2), **knobs,
    )  # fmt: skip
    assert torch.equal(listed.images, single.images)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_comes_close_and_is_not_full_precision(network, precision):
    full, half = (made(network, precision=p, stages=[Stage(12, 5)]).losses for p in ("float32", precision))
    torch.testing.assert_close(full, half, rtol=0.05, atol=0.05)
    assert not torch.equal(full, half)


def test_a_gradient_too_small_for_float16_still_leads(network):
    """What is too small for float16 is there if the loss is scaled; Adam makes a step of it all the same."""
    network.network[-1].weight.data.mul_(1e-6)
    exact, rough = (
        synthesize(
            network, -synthesis.logit([0, 1]), stages=Stage(8, 3), optimizer=Adam(0.05), precision=p, progress=False
        ).images
        for p in ("float32", "float16")
    )  # fmt: skip
    start = synthesize(
        network, -synthesis.logit([0, 1]), stages=Stage(8, 1), optimizer=Adam(1e-9), progress=False
    ).images
    assert F.cosine_similarity((exact - start).flatten(), (rough - start).flatten(), dim=0) > 0.9


@pytest.mark.parametrize("objective", [synthesis.logit([0]), synthesis.direction("5", torch.ones(1, 6))])
def test_what_is_read_in_half_precision_is_averaged_in_full(network, objective):
    losses = synthesize(
        network, objective, stages=Stage(8, 2), augmentations=AUGMENTATIONS, precision="bfloat16", progress=False
    ).losses
    assert not torch.equal(losses, losses.bfloat16().float())


def test_a_network_may_normalize_in_place(network):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x.sub_(0.5).div_(0.25))

    class Apart(InPlace):
        def forward(self, x):
            return self.network((x - 0.5) / 0.25)

    for augmentations in ((), AUGMENTATIONS):
        one, other = (made(model(), augmentations=augmentations).images for model in (InPlace, Apart))
        torch.testing.assert_close(one, other)


def test_a_schedule_falls_along_a_cosine():
    assert [Adam(2.0).rate(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([2.0, 1.0, 0.0])
    assert Adam(2.0, schedule="constant").rate(0.9) == 2.0


# --- what layers give


@pytest.mark.parametrize("batch_size", [2, 256])
def test_activations_are_what_layers_give_in_evaluation_mode(network, batch_size):
    x, body = torch.rand(5, 3, 8, 8), network.train().network
    found = synthesis.activations(network, ["input of 3", "3", synthesis.LOGITS], x, batch_size=batch_size)
    assert network.training
    network.eval()
    before = body[:3](x)
    expected = {"input of 3": before, "3": body[3](before), synthesis.LOGITS: network(x)}
    assert list(found) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values)
        assert not found[name].requires_grad
    torch.testing.assert_close(synthesis.activations(network, "3", x)["3"], found["3"])
    with pytest.raises(UnknownName, match="unknown layer '33': did you mean 3"):
        synthesis.activations(network, "33", x)


# --- stopping early


def test_a_pass_ends_at_the_deepest_layer_read(network):
    reached = []
    network.network[7].register_forward_hook(lambda *_: reached.append("head"))
    with Watcher(network, ["network.2", "0"]).watching() as watcher:
        seen = watcher(torch.rand(2, 3, 8, 8))
    assert set(seen) == {"network.2", "0"}
    assert not reached
    synthesize(network, -synthesis.channel("2", [0, 1]), stages=[Stage(8, 2)], progress=False)
    assert not reached


def test_what_is_seen_is_what_the_layer_gives(network):
    x = torch.rand(2, 3, 8, 8)
    with Watcher(network.eval(), ["3", "input of 3", synthesis.LOGITS, synthesis.IMAGES]).watching() as watcher:
        seen = watcher(x)
    assert torch.equal(seen["input of 3"], network.network[:3](x))
    assert torch.equal(seen["3"], network.network[:4](x))
    assert torch.equal(seen[synthesis.LOGITS], network(x))
    assert seen[synthesis.IMAGES] is x


def test_layers_that_cannot_be_read(network):
    with pytest.raises(UnknownName, match=r"unknown layer 'network\.33'"):
        Watcher(network, ["network.33"])
    network.network.append(nn.Identity())
    loose = nn.Module()
    loose.forward = lambda x: x.mean((2, 3))
    loose.never = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="never reaches never"):
        synthesize(loose, -synthesis.channel("never", [0]), stages=[Stage(4, 1)], progress=False)


# --- objectives


def test_objectives_add_and_scale(network):
    x = torch.rand(2, 3, 3, 8, 8)
    seen = {synthesis.LOGITS: torch.randn(2, 3, 5), synthesis.IMAGES: x}
    one, two = synthesis.cross_entropy([0, 4]), synthesis.total_variation()
    index = torch.arange(2)
    both = (one - 3 * two) * 2
    torch.testing.assert_close(both(seen, index), 2 * one(seen, index) - 6 * two(seen, index))
    assert both.targets == 2
    assert set(both.layers) == {synthesis.LOGITS, synthesis.IMAGES}
    with pytest.raises(ValueError, match="for 2 targets and cross-entropy for 3"):
        one + synthesis.cross_entropy([1, 2, 3])


def test_objectives_against_their_formulas():
    torch.manual_seed(1)
    maps, tokens, x = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 7, 4), torch.rand(2, 3, 3, 8, 8)
    seen, index = {"maps": maps, "tokens": tokens, synthesis.IMAGES: x}, torch.arange(2)
    expected = torch.stack([maps[0, :, 1].mean(), maps[1, :, 3].mean()])
    torch.testing.assert_close(synthesis.channel("maps", [1, 3])(seen, index), expected)
    expected = torch.stack([tokens[0, :, :, 2].mean(), tokens[1, :, :, 0].mean()])
    torch.testing.assert_close(synthesis.channel("tokens", [2, 0])(seen, index), expected)
    expected = torch.stack([maps[0, :, 1, 2, 5].mean(), maps[1, :, 3, 2, 5].mean()])
    torch.testing.assert_close(synthesis.neuron("maps", [1, 3], (2, 5))(seen, index), expected)
    torch.testing.assert_close(synthesis.neuron("tokens", [1, 1])(seen, index), tokens[:, :, 3, 1].mean(1))
    vectors = torch.randn(2, 4)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    expected = torch.stack([(tokens[i] @ unit[i]).mean() for i in range(2)])
    torch.testing.assert_close(synthesis.direction("tokens", vectors)(seen, index), expected)
    torch.testing.assert_close(synthesis.layer("maps")(seen, index), maps.square().flatten(1).mean(1))
    torch.testing.assert_close(synthesis.l2()(seen, index), x.flatten(2).norm(dim=2).mean(1))


def test_total_variation_in_both_forms():
    x = torch.rand(1, 1, 2, 6, 6, dtype=torch.float64).float()
    planes = [x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :],
              x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:]]  # fmt: skip
    expected = sum(plane.flatten(3).norm(dim=3) for plane in planes).mean() * 36 / 224**2
    found = synthesis.total_variation()({synthesis.IMAGES: x}, torch.tensor([0]))
    torch.testing.assert_close(found, expected.view(1))
    squares = sum(plane.square().flatten(2).mean(2) for plane in planes[:2]).mean()
    found = synthesis.total_variation("squares")({synthesis.IMAGES: x}, torch.tensor([0]))
    torch.testing.assert_close(found, squares.view(1))


def test_batchnorm_statistics_couple_a_targets_copies_and_nothing_else(network):
    objective = synthesis.batchnorm_statistics(network)
    assert objective.couples_copies
    features = torch.randn(2, 3, 8, 4, 4)
    norm = network.network[1]
    found = objective({"input of network.1": features}, torch.arange(2))
    for target in range(2):
        rows = features[target].transpose(0, 1).flatten(1)  # (c, copies · positions)
        gap = (rows.mean(1) - norm.running_mean).norm() + (rows.var(1, correction=0) - norm.running_var).norm()
        assert found[target].item() == pytest.approx(10 * gap.item(), rel=1e-5)
    with pytest.raises(ValueError, match="no batch normalization"):
        synthesis.batchnorm_statistics(nn.Linear(2, 2))


def test_positions_and_channels_out_of_range(network):
    for objective, said in (
        (synthesis.channel("3", [6]), "3 has 6 channels"),
        (synthesis.neuron("3", [0], (9, 0)), "the map is 3 × 3"),
        (synthesis.cross_entropy([5]), r"classes must lie in \[0, 4\]"),
        (synthesis.logit([-1]), r"classes must lie in \[0, 4\]"),
        (synthesis.direction("3", torch.ones(1, 5)), "the directions have 5"),
    ):
        with pytest.raises(ValueError, match=said):
            synthesize(network, objective, stages=[Stage(8, 1)], progress=False)


# --- parametrizations


@pytest.mark.parametrize("form", [Pixels(), Fourier(), Fourier(decorrelate=False, decay=0.5)])
def test_what_is_stored_gives_the_image_back(form):
    images = torch.rand(2, 3, 8, 10)
    torch.testing.assert_close(form.image(form.store(images)), images, rtol=0, atol=2e-4)


@pytest.mark.parametrize("form", [Pixels(), Fourier(), Phases(torch.rand(3, 8, 5))])
def test_fresh_images_are_in_range_and_belong_to_their_target(form):
    like = torch.zeros(())
    both = form.image(form.start(ImageRandom(3, torch.tensor([4, 7])), 3, (8, 8), like=like))
    alone = form.image(form.start(ImageRandom(3, torch.tensor([7])), 3, (8, 8), like=like))
    assert both.shape == (2, 3, 8, 8)
    assert both.min() >= 0
    assert both.max() <= 1
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])


def test_every_parametrization_can_fit_a_picture():
    picture = torch.rand(1, 3, 8, 8)
    match = synthesis.Objective(
        [synthesis.IMAGES], lambda seen, _: (seen[synthesis.IMAGES] - picture).square().mean((1, 2, 3, 4)), "match"
    )
    for form, rate in ((Pixels(), 0.1), (Fourier(), 0.3)):
        found = synthesize(
            nn.Identity(), match, targets=1, stages=[Stage(8, 150)], parametrization=form, optimizer=Adam(rate),
            progress=False,
        )  # fmt: skip
        assert found.losses[-1] < 0.05 * found.losses[0]


def test_phases_keep_the_magnitudes_they_were_given():
    images = 0.5 + 0.05 * torch.randn(16, 3, 8, 8)  # far from the ends of the range, where clipping would change them
    magnitudes = synthesis.mean_spectrum(images)
    form = Phases(magnitudes)
    image = form.image(form.start(ImageRandom(0, torch.arange(1)), 3, (8, 8), like=torch.zeros(())))
    found = torch.fft.rfft2(image[0].double(), norm="ortho").abs()
    inside = torch.ones(8, 5, dtype=torch.bool)
    inside[:, 0] = inside[:, 4] = False  # columns that are their own mirror image
    torch.testing.assert_close(found[:, inside], magnitudes[:, inside], rtol=1e-4, atol=1e-5)
    assert found[:, 0, 0] == pytest.approx(magnitudes[:, 0, 0], rel=1e-5)
    larger = form.image(form.start(ImageRandom(0, torch.arange(1)), 3, (16, 16), like=torch.zeros(())))
    assert larger.mean((0, 2, 3)) == pytest.approx(image.mean((0, 2, 3)), abs=1e-4)


def test_phases_at_another_size_have_the_spectrum_of_resized_images():
    generator = torch.Generator().manual_seed(0)
    noise = torch.fft.rfft2(torch.randn(64, 1, 32, 32, generator=generator))
    waves = torch.hypot(torch.fft.fftfreq(32)[:, None], torch.fft.rfftfreq(32)[None])
    images = 0.5 + 0.01 * torch.fft.irfft2(noise * waves.clamp_min(1 / 32) ** -1)  # as natural images fall off
    enlarged = F.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    form = Phases(synthesis.mean_spectrum(images))
    start = form.start(ImageRandom(0, torch.arange(1)), 1, (64, 64), like=torch.zeros(()))
    found = torch.fft.rfft2(form.image(start)[0].double(), norm="ortho").abs()[0, :, 1:32]
    expected = synthesis.mean_spectrum(enlarged)[0, :, 1:32]
    low = 64 * torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None])[:, 1:32] < 12  # of 32 each way
    torch.testing.assert_close(found[low], expected[low], rtol=0.25, atol=0)
    assert found[~low].max() < 1.2 * expected[~low].max()  # no edge that a cut would give


def test_widths_and_channels_that_frequencies_cannot_have():
    for form in (Fourier(), Phases(torch.rand(3, 8, 5))):
        with pytest.raises(ValueError, match="must be even"):
            form.start(ImageRandom(0, torch.arange(1)), 3, (8, 7), like=torch.zeros(()))
    with pytest.raises(ValueError, match="3 channels, the images 1"):
        Phases(torch.rand(3, 8, 5)).start(ImageRandom(0, torch.arange(1)), 1, (8, 8), like=torch.zeros(()))
    with pytest.raises(ValueError, match="be finite and not negative"):
        Phases(-torch.rand(3, 8, 5))


# --- augmentations


def test_jitter_is_shared_before_the_ensemble_and_own_after_it():
    x = torch.rand(2, 3, 9, 9)
    shared = augment(x, [Jitter(3), Ensemble(4)], moment())
    own = augment(x, [Ensemble(4), Jitter(3)], moment())
    assert all(torch.equal(shared[:, 0], shared[:, k]) for k in range(4))
    assert not all(torch.equal(own[:, 0], own[:, k]) for k in range(4))
    for rolled, image in zip(own.flatten(0, 1), x.repeat_interleave(4, 0), strict=True):
        shifts = ((dy, dx) for dy in range(-3, 4) for dx in range(-3, 4))
        assert any(torch.equal(rolled, image.roll(shift, (-2, -1))) for shift in shifts)


def test_a_preview_is_what_the_augmentations_make_of_an_image():
    x = torch.rand(2, 3, 8, 8)
    seen = synthesis.preview(x, [Jitter(2), Ensemble(3), ColorShift(1.0, 1.0)], seed=1)
    assert seen.shape == (2, 3, 3, 8, 8)
    assert not torch.equal(seen[:, 0], seen[:, 1])
    assert torch.equal(seen[1:], synthesis.preview(x, [Jitter(2), Ensemble(3), ColorShift(1.0, 1.0)], seed=1)[1:])
    rolled = synthesis.preview(x, [Jitter(2), Ensemble(3)], seed=1)
    assert torch.equal(rolled[:, 0], rolled[:, 2])
    assert torch.equal(rolled[:, 0].flatten(2).sort().values, x.flatten(2).sort().values)


def test_jitter_is_thirty_two_pixels_at_224():
    assert [Jitter.for_size(size).limit for size in (224, 64, 32)] == [32, 9, 5]


def test_color_shift_in_both_forms():
    x = torch.rand(2, 5, 3, 4, 4)
    multiplied, divided = ColorShift()(x, moment()), ColorShift(form="divide")(x, moment())
    flat = x.flatten(3)
    for found in (multiplied.flatten(3), divided.flatten(3)):
        slope = (found[..., 1] - found[..., 0]) / (flat[..., 1] - flat[..., 0])
        shift = found[..., 0] - slope * flat[..., 0]
        assert ((slope >= math.exp(-1) - 1e-3) & (slope <= math.e + 1e-3)).all()
        torch.testing.assert_close(slope[..., None] * flat + shift[..., None], found, rtol=1e-3, atol=1e-3)
    assert torch.equal(ColorShift(0, 0)(x, moment()), x)
    steps = [ColorShift(every=every)(x, moment(step=s)) for every in ("stage", "step") for s in (1, 2)]
    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[2], steps[3])


def test_noise_goes_along_a_line_and_may_be_one_number_a_channel():
    x = torch.zeros(2, 4, 3, 16, 16)
    spread = [synthesis.GaussianNoise(0.5, 0.0)(x, moment(progress=p)).std().item() for p in (0.0, 0.5, 1.0)]
    assert spread == pytest.approx([0.5, 0.25, 0.0], abs=0.02)
    noisy = synthesis.GaussianNoise(0.5, per="channel")(x, moment())
    assert torch.equal(noisy, noisy[..., :1, :1].expand_as(noisy))
    assert noisy.std() > 0.2


def test_geometry_that_changes_nothing_changes_nothing():
    x = torch.rand(2, 2, 3, 8, 8)
    for same in (synthesis.Affine(), synthesis.Crop((1.0, 1.0)), synthesis.Blur(0.0), synthesis.Pad(0)):
        torch.testing.assert_close(same(x, moment()), x, rtol=0, atol=1e-5)


def test_geometry_against_its_meaning():
    x = torch.rand(1, 1, 3, 8, 8)
    padded = synthesis.Pad(2, value=0.25)(x, moment(1))
    assert padded.shape[-2:] == (12, 12)
    assert (padded[..., :2, :] == 0.25).all()
    assert torch.equal(padded[..., 2:10, 2:10], x)
    flat = torch.full((1, 2, 3, 8, 8), 0.5)
    torch.testing.assert_close(synthesis.Affine(20, (0.8, 1.2))(flat, moment(1)), flat)
    impulse = torch.zeros(1, 1, 1, 15, 15)
    impulse[..., 7, 7] = 1
    blurred = synthesis.Blur(1.5)(impulse, moment(1))
    assert blurred.sum().item() == pytest.approx(1, abs=1e-4)
    rows = torch.arange(15.0) - 7
    spread = (blurred[0, 0, 0].sum(1) * rows**2).sum().sqrt().item()
    assert spread == pytest.approx(1.5, abs=0.05)
    ramp = torch.arange(32.0).expand(1, 1, 1, 32, 32) / 31
    crop = synthesis.Crop((0.25, 0.25))(ramp, moment(1))
    assert crop.max() - crop.min() == pytest.approx(0.25, abs=0.05)


# --- bad input


def test_settings_that_cannot_be_meant(network):
    objective = synthesis.cross_entropy([0])
    for knobs, said in (
        ({"stages": []}, "at least one stage"),
        ({"stages": STAGES, "targets": 2}, "different numbers of targets"),
        ({"stages": STAGES, "ids": [1, 2]}, "ids must be 1 different numbers"),
        ({"stages": STAGES, "start": torch.rand(1, 3, 5, 5)}, "start must have shape"),
        ({"stages": STAGES, "precision": "int4"}, "unknown precision"),
        ({"stages": STAGES, "channels": 1}, "cannot take images of shape"),
    ):
        with pytest.raises(ValueError, match=said):
            synthesize(network, objective, progress=False, **knobs)
    with pytest.raises(ValueError, match="does not say how many targets"):
        synthesize(network, synthesis.layer("0"), stages=STAGES, progress=False)
    for make in (
        lambda: Stage(8, 0), lambda: Stage(8, 2, border=8), lambda: Adam(0), lambda: Adam(schedule="line"),
        lambda: Jitter(-1), lambda: Ensemble(0), lambda: ColorShift(-1), lambda: ColorShift(form="add"),
        lambda: synthesis.GaussianNoise(-1), lambda: synthesis.Affine(-1), lambda: synthesis.Crop((0, 1)),
        lambda: synthesis.Blur(-1), lambda: synthesis.Pad(-1),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            make()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"stages": 64}, r"stages must be one or several of synthesis's, such as Stage\(size, steps\), got 64"),
        ({"stages": [64, 400]}, r"stages must be .*, got 64"),
        ({"stages": "64"}, r"stages must be .*, got '6'"),
        ({"augmentations": [Jitter(1), 3]}, r"augmentations must be .*, such as Jitter\(8\), got 3"),
        ({"optimizer": 0.1}, r"optimizer must be a synthesis.Adam, such as Adam\(lr=0.05\), got 0.1"),
        ({"optimizer": torch.optim.Adam}, "optimizer must be a synthesis.Adam"),
        ({"parametrization": "pixels"}, r"parametrization must be .*, such as Pixels\(\), got 'pixels'"),
        ({"parametrization": Fourier}, "parametrization must be one of synthesis's"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": None}, "seed must be a whole number, got None"),
    ],
)
def test_parts_of_another_kind_are_named(network, part, said):
    with pytest.raises(TypeError, match=said):
        made(network, **part)


@pytest.mark.bad_input  # a number of numpy is no int to a type checker
def test_seeds_may_be_numpys(network):
    assert torch.equal(made(network, seed=np.int64(3)).images, made(network, seed=3).images)


def test_a_dead_unit_is_named_with_its_likely_cause(network):
    nn.init.constant_(network.network[3].bias, -100)
    with pytest.warns(UserWarning, match="no gradient at the start of targets .0, 1.: .* behind a ReLU that is off"):
        synthesize(network, -synthesis.channel("4", [0, 1]), stages=[Stage(8, 1)], progress=False)


WHO_ASKS = """
import thesis_kit as tk
from thesis_kit import synthesis
model = tk.build("small_cnn", n_classes=5, in_channels=3, width=4, seed=0)
for p in model.parameters():
    p.data.zero_()
tk.inversion.plug_in_inversion(model, [0], size=16, steps=1, copies=1, progress=False)
tk.synthesis.synthesize(model, synthesis.cross_entropy([0]), stages=synthesis.Stage(8, 1), progress=False)
"""


def test_the_warning_points_at_who_asked(tmp_path):
    """In a process of its own, without the frames of the tests' type checker."""
    script = tmp_path / "who_asks.py"
    script.write_text(WHO_ASKS)
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stderr
    places = re.findall(r"^(.*):(\d+): UserWarning: cross-entropy has no gradient", said, re.MULTILINE)
    assert places == [(str(script), "7"), (str(script), "8")]


@pytest.mark.parametrize(
    ("tokens", "place"), [(64, 36), (65, 37), (66, 38), (69, 41), (49, 24), (197, 106), (7, 3), (1, 0), (2, 1)]
)
def test_the_middle_token_is_the_patch_in_the_middle_of_the_image(tokens, place):
    activation = torch.arange(float(tokens)).view(1, 1, tokens, 1)
    assert synthesis.neuron("a", [0])({"a": activation}, torch.zeros(1, dtype=torch.long)) == place


def test_what_has_no_gradient_or_no_number_is_refused(network):
    class Detached(nn.Module):
        def forward(self, x):
            return network(x.detach())

    with pytest.raises(ValueError, match="does not depend on the images in a differentiable way"):
        synthesize(Detached(), synthesis.cross_entropy([0]), stages=[Stage(8, 1)], progress=False)
    nn.init.constant_(network.network[7].bias, math.nan)
    with pytest.raises(NonFiniteOutput, match="returned NaN or infinite logits"):
        synthesize(network, synthesis.cross_entropy([0]), stages=[Stage(8, 1)], progress=False)


def test_images_need_not_be_square(network):
    found = made(network, stages=[Stage((8, 12), 2), Stage((10, 16), 2, border=2)])
    assert found.images.shape[-2:] == (10, 16)
