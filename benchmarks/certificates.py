"""What certificates and forgeries cost beside the plain way to write them, in one process, on one thread.

- ``certify`` beside CERTIFY as the paper's pseudo-code has it, image by image: at the published batch of 1,000, and at
  that loop's own best batch. Above 1 ours is faster; it should not be slower than the best, and 2.5 times as fast as
  the published.
- The Shadow Attack on several images at once beside one image at a time. Above 1 together is faster.
- Interval bounds beside a plain forward pass: how many times as long they take. It should stay below 2.5.

Process time of interleaved pairs, the order within a pair alternating; medians of ratios are printed.
"""

from __future__ import annotations

import argparse
import platform

import torch
from pgd_overhead import keep_freed_memory
from scipy.stats import beta, norm
from timing import ratio
from torch import Tensor, nn

from thesis_kit.attacks import ShadowConstants, shadow
from thesis_kit.certification import certify, ibp_margins
from thesis_kit.models import build

SIGMA, N0, N, ALPHA = 0.25, 100, 10_000, 0.001
BATCHES = (50, 100, 200, 400, 1000)


def counts(model: nn.Module, x: Tensor, n: int, batch: int, n_classes: int) -> Tensor:
    """Votes over n noisy copies of one image (c, h, w)."""
    found = torch.zeros(n_classes, dtype=torch.int64)
    with torch.no_grad():
        while n > 0:
            size = min(batch, n)
            noisy = x.repeat(size, 1, 1, 1)
            found += torch.bincount(model(noisy + SIGMA * torch.randn_like(noisy)).argmax(dim=1), minlength=n_classes)
            n -= size
    return found


def pseudo_code(model: nn.Module, x: Tensor, batch: int, n_classes: int) -> list[tuple[int, float]]:
    """CERTIFY of Cohen et al. 2019, as one would type it."""
    found = []
    for image in x:
        label = int(counts(model, image, N0, batch, n_classes).argmax())
        hits = int(counts(model, image, N, batch, n_classes)[label])
        low = beta.ppf(ALPHA, hits, N - hits + 1) if hits else 0.0
        found.append((label, SIGMA * norm.ppf(low)) if low > 0.5 else (-1, 0.0))
    return found


def certification(pairs: int) -> None:
    for name, options, shape in (
        ("small_cnn", {"width": 16, "in_channels": 1}, (4, 1, 8, 8)),
        ("small_resnet", {"width": 16}, (2, 3, 32, 32)),
    ):
        model = build(name, n_classes=8, seed=0, **options).eval()
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        found = {batch: faster_than_the_loop(model, x, batch, pairs) for batch in BATCHES}
        said = ", ".join(f"{batch} {value:.2f}" for batch, value in found.items())
        print(f"certify, {name}, {shape}, n = {N:,}: times as fast as the loop at its batch of {said}")
        print(f"  at its best batch {min(found.values()):.2f}, at the published 1,000 {found[1000]:.2f}")


def faster_than_the_loop(model: nn.Module, x: Tensor, batch: int, pairs: int) -> float:
    knobs = {"sigma": SIGMA, "n0": N0, "n": N, "alpha": ALPHA, "progress": False, "early_stop": False}
    return ratio(lambda: pseudo_code(model, x, batch, 8), lambda: certify(model, x, **knobs), pairs)


def forging(pairs: int) -> None:
    model = build("small_resnet", n_classes=8, width=16, seed=0).eval()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    target, ids = torch.arange(8) % 8, torch.arange(8)
    knobs = {"sigma": SIGMA, "constants": ShadowConstants(steps=5, draws=32)}

    def together() -> Tensor:
        return shadow(model, x, target, ids=ids, **knobs)

    def alone() -> Tensor:
        rows = (slice(i, i + 1) for i in range(8))
        return torch.cat([shadow(model, x[row], target[row], ids=ids[row], **knobs) for row in rows])

    apart = (together() - alone()).abs().max()
    faster = ratio(alone, together, pairs)
    print(f"Shadow, 8 images at once: {faster:.2f} times as fast as one by one, results apart by {apart:.1e}")


def bounds(pairs: int) -> None:
    for name, options, shape in (
        ("strided_cnn", {"width": 16, "in_channels": 3}, (256, 3, 32, 32)),
        ("small_resnet", {"width": 16}, (64, 3, 32, 32)),
    ):
        model = build(name, n_classes=8, seed=0, **options).eval()
        x, y = torch.rand(shape, generator=torch.Generator().manual_seed(0)), torch.zeros(shape[0], dtype=torch.int64)
        with torch.no_grad():
            slower = ratio(lambda: ibp_margins(model, x, y, 2 / 255), lambda: model(x), pairs)  # noqa: B023
        print(f"interval bounds, {name}: {slower:.2f} times a forward pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of each comparison")
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    certification(pairs)
    forging(pairs)
    bounds(3 * pairs)


if __name__ == "__main__":
    main()
