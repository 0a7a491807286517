"""What attacking only the survivors saves, beside the most it could save.

The same attacks on the same images with the same random numbers: once independently (every attack on every image), once
in order on survivors only. The bound is the ratio of costs when survivors cost their share and nothing else costs
anything: Σ cost / Σ (cost × share of survivors). Attacks of fixed cost per image take the measured times of the
independent run as costs. The book's strong attacks stop early on fooled images, which are cheap therefore; there the
costs are the passes counted. At least 0.8 of the bound should be reached. Process time, one thread, interleaved.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from functools import partial

import torch

from thesis_kit.attacks import pgd
from thesis_kit.data.digits import digits
from thesis_kit.evaluation import RobustAccuracy, robust_accuracy, strong_attacks
from thesis_kit.models import build
from thesis_kit.training import PGD, train

EPS = 0.15


def measured(model, data, attacks, *, independent: bool) -> tuple[float, RobustAccuracy]:
    start = time.process_time()
    found = robust_accuracy(model, data, attacks, independent=independent, progress=False)
    return time.process_time() - start, found


def passes(found: RobustAccuracy) -> int:
    """Images carried through the network, forward and backward, by all attacks."""
    return sum(outcome.passes.forward_images + outcome.passes.backward_images for outcome in found.attacks)


def bound_of_shares(everything: RobustAccuracy, survivors: RobustAccuracy) -> float:
    """Σ cost / Σ (cost × share), the share being that of the images an attack was run on."""
    n = len(everything.correct)
    costs = [outcome.seconds for outcome in everything.attacks]
    shares = [outcome.attacked / n for outcome in survivors.attacks]
    return sum(costs) / sum(cost * share for cost, share in zip(costs, shares, strict=True))


def bound_of_passes(everything: RobustAccuracy, survivors: RobustAccuracy) -> float:
    return passes(everything) / passes(survivors)


def compare(label: str, model, data, attacks, bound, pairs: int) -> None:
    speedups, bounds = [], []
    for pair in range(pairs):
        order = (True, False) if pair % 2 else (False, True)
        runs = {independent: measured(model, data, attacks, independent=independent) for independent in order}
        (slow, everything), (fast, survivors) = runs[True], runs[False]
        if not torch.equal(everything.worst, survivors.worst):
            raise SystemExit(f"{label}: the worst cases differ")
        speedups.append(slow / fast)
        bounds.append(bound(everything, survivors))
    speedup, limit = statistics.median(speedups), statistics.median(bounds)
    print(
        f"{label}: robust accuracy {everything.robust_accuracy:.3f} of {everything.clean_accuracy:.3f}, "
        f"speed-up {speedup:.2f}, bound {limit:.2f}, reached {speedup / limit:.2f} (median of {pairs})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs for the attacks of fixed cost")
    parser.add_argument("--pairs-strong", type=int, default=1, help="interleaved pairs for the strong attacks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    splits = digits(0)
    fixed = {
        f"PGD-40 {loss} {seed}": partial(pgd, eps=EPS, steps=40, loss=loss)
        for seed in (1, 2)
        for loss in ("ce", "margin", "dlr")
    }
    for label, method in (("natural model", None), ("robust model", PGD(EPS, steps=3))):
        model = build("small_cnn", width=16, seed=0)
        train(model, splits.train, method, updates=300, progress=False)
        compare(f"{label}, fixed cost", model, splits.test, fixed, bound_of_shares, options.pairs)
        strong = strong_attacks(EPS, queries=1000)
        compare(f"{label}, strong attacks", model, splits.test, strong, bound_of_passes, options.pairs_strong)


if __name__ == "__main__":
    main()
