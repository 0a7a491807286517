"""What PGD-20 costs beside a bare hand-written loop: same model, start distribution, steps and batch.

Process time of interleaved pairs (the order within a pair alternates), one thread; the median ratio is printed for a
small network on digits-sized images and for a residual network on 32 × 32 ones. It should stay below 1.10.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.attacks import pgd
from thesis_kit.models import build

EPS, STEPS = 8 / 255, 20


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory to the system (mallopt: no trimming, no mmap below 32 MiB).

    Otherwise page faults, whose number depends on where a process happens to lie in memory, decide the ratio: medians
    from 0.97 to 1.21 were seen for the same code.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        print("not glibc: the ratios may vary from process to process")
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**25)


def bare_pgd(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """PGD as one would type it: no checks, no choice of norm or loss."""
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS, generator=generator)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        loss = F.cross_entropy(model(x_adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach() + EPS / 4 * gradient.sign()
        x_adv = torch.clamp(torch.clamp(x_adv, x - EPS, x + EPS), 0, 1)
    return x_adv


def our_pgd(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    return pgd(model, x, y, eps=EPS, steps=STEPS, generator=generator)


def seconds(attack: Callable, model: nn.Module, x: Tensor, y: Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    start = time.process_time()
    attack(model, x, y, generator)
    return time.process_time() - start


def ratios(model: nn.Module, x: Tensor, pairs: int) -> list[float]:
    """Time of ours over time of the bare loop, one ratio a pair."""
    y = model(x).argmax(dim=1).detach()
    found = []
    for pair in range(-1, pairs):  # the first pair warms up
        order = (our_pgd, bare_pgd) if pair % 2 else (bare_pgd, our_pgd)
        spent = {attack: seconds(attack, model, x, y) for attack in order}
        if pair >= 0:
            found.append(spent[our_pgd] / spent[bare_pgd])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21, help="interleaved pairs on the small network")
    parser.add_argument("--pairs-residual", type=int, default=15, help="interleaved pairs on the residual network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    random = torch.Generator().manual_seed(0)
    cases = {
        "small_cnn, 256 × 1 × 8 × 8": ("small_cnn", (256, 1, 8, 8), options.pairs),
        "preact_resnet18, 4 × 3 × 32 × 32": ("preact_resnet18", (4, 3, 32, 32), options.pairs_residual),
    }
    for label, (name, shape, pairs) in cases.items():
        model = build(name, in_channels=shape[1], n_classes=10, seed=0).eval()
        found = ratios(model, torch.rand(shape, generator=random), pairs)
        low, _, high = statistics.quantiles(found, n=4)
        print(f"{label}: median {statistics.median(found):.3f} of {pairs} pairs (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
