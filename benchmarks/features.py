"""What looking at units costs beside the network's own passes, in one process, on one thread.

- Recording a layer of ViT-B/16 at 224 pixels (random weights) beside the bare forward pass of the whole network: the
  last block's hidden units, behind which little is left, should cost at most 1.1 times as much; those of the middle
  block should cost less than the pass, which ends there.
- Memory: what stands at that layer for a data set of 10 and of 40 batches, each pooled as it goes by. The peak of the
  process should not grow with the data.
- Objectives in the first third of a network beside the same with the rest of it run, forward and backward: at least
  twice as fast. That both come to the same losses is asserted.
- 64 units of a middle layer of the scenes ViT at 64 pixels, by each method with the steps that the book takes: seconds
  of one core, of which two cores should make at most 60 seconds.

Process time of interleaved pairs, the order within a pair alternating; medians of ratios are printed.
"""

from __future__ import annotations

import argparse
import platform
import resource

import timm
import torch
from timing import ratio, seconds
from torch import Tensor

from thesis_kit import features, recording, synthesis
from thesis_kit.models import anatomy, build, zoo

SIDE, BATCH = 224, 4
SHALLOW = {
    "small_resnet": {"width": 16},
    "vit_tiny_patch16_224": {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3},
}
UNITS = torch.linspace(0, 383, 64).round().long().tolist()


def recording_costs(pairs: int) -> None:
    model = timm.create_model("vit_base_patch16_224", num_classes=10).eval().requires_grad_(False)
    x = torch.rand(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def bare() -> Tensor:
        with torch.no_grad():
            return model(x)

    for block in (11, 5):
        site = f"blocks.{block}.hidden"
        costs = ratio(lambda site=site: recording.record(model, x, site), bare, pairs)
        pooled = ratio(lambda site=site: recording.top_examples(model, x, site, k=2), bare, pairs)
        print(f"ViT-B/16, {SIDE} px: {site} costs {costs:.2f} of a whole pass, its strongest images {pooled:.2f}")
    peaks = []
    for batches in (1, 10, 40):
        minibatches = (x for _ in range(batches))
        recording.stream(model, minibatches, "blocks.2.hidden", batch_size=BATCH)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    grown = peaks[2] - peaks[1]
    print(f"memory's peak after 1, 10 and 40 batches: {', '.join(f'{p:.0f}' for p in peaks)} MiB, {grown:.0f} grown")


def shallow_objectives(pairs: int) -> None:
    for name, options in SHALLOW.items():
        model = build(name, n_classes=16, seed=0, **options).eval().requires_grad_(False)
        blocks = anatomy.blocks(model)
        layer, _ = blocks[len(blocks) // 3 - 1]
        units = list(range(8))
        shallow = synthesis.maximize(features.excitation(model, layer, units))
        whole = shallow + 0.0 * synthesis.logit([0] * len(units))

        def run(objective: synthesis.Objective, model=model) -> Tensor:
            stages = synthesis.Stage(64, 3)
            seen = [synthesis.Ensemble(4)]
            return synthesis.synthesize(model, objective, stages=stages, augmentations=seen, progress=False).losses

        torch.testing.assert_close(run(shallow), run(whole), rtol=1e-4, atol=1e-5)
        faster = ratio(lambda whole=whole, run=run: run(whole), lambda shallow=shallow, run=run: run(shallow), pairs)
        print(f"{name}: units of {layer}, {faster:.2f} times as fast as with the whole network run")


def many_units() -> None:
    vit = zoo.load("vit-scenes64").requires_grad_(False)
    for method, steps, copies in (("fourier", 32, 1), ("fourier", 128, 2), ("paper", 50, 4)):
        made: list[object] = []

        def work(method=method, steps=steps, copies=copies, made=made) -> None:
            knobs = {"method": method, "steps": steps, "copies": copies, "progress": False}
            made.append(features.visualize(vit, "blocks.3.hidden", UNITS, **knobs))

        spent = seconds(work)
        print(f"64 units of blocks.3.hidden, 64 px, {method}, {steps} steps of {copies}: {spent:.0f} s of one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of each comparison")
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    recording_costs(pairs)
    shallow_objectives(pairs)
    many_units()


if __name__ == "__main__":
    main()
