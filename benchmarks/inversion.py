"""What inversions cost beside the plain way to write them, in one process, on one thread.

- Plug-In Inversion of several images at once beside a loop that takes one image at a time through the same stages,
  augmentations and random numbers. Above 1 the engine is faster; it should not be slower. That both lose the same is
  asserted.
- The same on a real network, EfficientNet-Lite0 at 128 pixels, where its package is installed: the engine with batch
  normalization folded away beside the loop on the network as it comes, which should take 1.5 times as long, and beside
  the bare passes, forward and backward on as many images of the same sizes, of which it should reach 0.8.
- An objective in the first third of a network, where the engine stops the forward pass, beside the same objective with
  the rest of the network run too: forward and backward (its logits count, times zero), and forward alone (they are
  read, and nothing is made of them). It should be at least twice as fast as the first; where all blocks cost the same,
  the second takes twice as long at most, for no gradients of weights are made. That all three lose the same is
  asserted.

Process time of interleaved pairs, the order within a pair alternating; medians of ratios are printed.
"""

from __future__ import annotations

import argparse
import math
import platform

import torch
from timing import ratio
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.extras import MissingPackage
from thesis_kit.inversion import growing, plug_in_inversion
from thesis_kit.models import Classifier, anatomy, build, zoo
from thesis_kit.models.folding import folded
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.synthesis import (
    LOGITS,
    ColorShift,
    Ensemble,
    Jitter,
    Moment,
    Objective,
    Stage,
    channel,
    logit,
    synthesize,
)
from thesis_kit.synthesis.augmentations import augment

SIZE, STEPS, COPIES, LR, SEED = 64, 2, 8, 0.05, 0
FRESH, STEP, STAGE = range(3)  # streams of the seed, as the engine numbers them
FEW = 4  # steps after which rounding alone has not yet led two inversions of a deep network apart
CLOSE = 1e-4  # of losses that only rounding keeps apart
NETWORKS = {
    "small_resnet": {"width": 16},
    "vit_tiny_patch16_224": {"img_size": SIZE, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3},
}


def network(name: str) -> Classifier:
    model = build(name, n_classes=16, seed=0, **NETWORKS[name]).eval()
    with torch.no_grad():
        anatomy.head(model).weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return model.requires_grad_(False)


def one_image(model: nn.Module, label: int, identity: int, size: int = SIZE, n_copies: int = COPIES) -> Tensor:
    """Plug-In Inversion of one image, as one would type it; the losses of all steps."""
    ids, y = torch.tensor([identity]), torch.full((n_copies,), label)
    augmentations = [Jitter.for_size(size), Ensemble(n_copies), ColorShift()]
    x, losses = None, []
    for number, stage in enumerate(growing(size, STEPS)):
        fresh = ImageRandom(mix_seed(SEED, FRESH, number), ids).uniform(3, *stage.sides, dtype=torch.float64).float()
        if x is not None:
            inner = stage.size - stage.border
            top = (stage.size - inner) // 2
            resized = F.interpolate(x.detach(), (inner, inner), mode="bilinear")
            fresh[..., top : top + inner, top : top + inner] = resized
        x = fresh.requires_grad_()
        adam = torch.optim.Adam([x], lr=LR, betas=(0.5, 0.99))
        for step in range(1, STEPS + 1):
            for group in adam.param_groups:
                group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * (step - 1) / STEPS))
            random = [ImageRandom(mix_seed(SEED, *stream), ids) for stream in ((STEP, number, step), (STAGE, number))]
            copies = augment(x, augmentations, Moment(*random, (step - 1) / STEPS))[0]  # (e, c, h, w)
            loss = F.cross_entropy(model(copies), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            losses.append(loss.detach())
    return torch.stack(losses)


def alike(losses: Tensor, others: Tensor, what: str) -> float:
    """How far losses are apart, in parts of their size."""
    apart = float((losses - others).abs().max() / losses.abs().max())
    if not apart < CLOSE:
        raise SystemExit(f"{what}: the losses differ by {apart:.1e} of their size")
    return apart


def inverting(name: str, images: int, pairs: int) -> None:
    model, labels = network(name), list(range(images))

    def together() -> Tensor:
        knobs = {"size": SIZE, "steps": STEPS, "copies": COPIES, "lr": LR, "seed": SEED}
        return plug_in_inversion(model, labels, progress=False, **knobs).losses

    def alone() -> Tensor:
        return torch.stack([one_image(model, label, place) for place, label in enumerate(labels)], dim=1)

    apart = alike(together(), alone(), name)
    faster = ratio(alone, together, pairs)
    print(f"{name}: {images} images, {faster:.2f} times as fast as one by one, losses apart by {apart:.0e}")


def inverting_a_real_network(images: int, pairs: int, size: int = 128, copies: int = 4) -> None:
    try:
        model = zoo.load("efficientnet-lite0").to(memory_format=torch.channels_last).requires_grad_(False)
    except MissingPackage as missing:
        print(f"efficientnet-lite0: not run: {missing}")
        return
    light, labels = folded(model, torch.zeros(1, 3, size, size)), list(range(images))
    knobs = {"size": size, "steps": STEPS, "copies": copies, "lr": LR, "seed": SEED, "progress": False}

    def together() -> Tensor:
        return plug_in_inversion(light, labels, **knobs).losses

    def alone() -> Tensor:
        one_by_one = [one_image(model, label, place, size, copies) for place, label in enumerate(labels)]
        return torch.stack(one_by_one, dim=1)

    def bare() -> None:
        for stage in growing(size, STEPS):
            for x in torch.rand(images * copies, 3, *stage.sides).split(16) * stage.steps:
                x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
                torch.autograd.grad(light(x).sum(), x)

    apart = alike(together()[:FEW], alone()[:FEW], "efficientnet-lite0")
    faster, floor = ratio(alone, together, pairs), ratio(bare, together, pairs)
    print(
        f"efficientnet-lite0, {size} pixels: {images} images, {faster:.2f} times as fast as one by one, {floor:.2f} of "
        f"the bare passes' speed, losses of the first {FEW} steps apart by {apart:.0e}"
    )


def stopping(name: str, pairs: int) -> None:
    model, targets = network(name), list(range(8))
    blocks = anatomy.blocks(model)
    place, _ = blocks[len(blocks) // 3 - 1]
    shallow = channel(place, targets)
    read = Objective([place, LOGITS], shallow.read, "with the logits read", targets=len(targets))

    def run(objective: Objective) -> Tensor:
        return synthesize(model, objective, stages=[Stage(SIZE, 3)], augmentations=[Ensemble(4)], progress=False).losses

    found = {}
    for what, objective in (("forward and backward", shallow + 0.0 * logit(targets)), ("forward alone", read)):
        alike(run(shallow), run(objective), f"{name}, {what}")
        found[what] = ratio(lambda objective=objective: run(objective), lambda: run(shallow), pairs)
    said = ", ".join(f"{value:.2f} with the rest run {what}" for what, value in found.items())
    print(f"{name}: an objective at {place}, times as fast as {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of each comparison")
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    for name in NETWORKS:
        inverting(name, 8, pairs)
    inverting_a_real_network(4, pairs)
    for name in NETWORKS:
        stopping(name, pairs)


if __name__ == "__main__":
    main()
