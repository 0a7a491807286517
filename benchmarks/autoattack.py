"""The book's strong attacks beside standard AutoAttack: who leaves fewer images, and at what cost.

The peer is AutoAttack as its authors publish it, in the package ``pyautoattack`` (``pip install pyautoattack``; not
needed elsewhere): APGD-CE, APGD-DLR and FAB aimed at up to nine classes, and Square with 5,000 queries. Both attack the
same test images of the zoo's networks in one batch, and an example counts if it lies in ball and pixel range, with a
hundred thousandth of ε for the peer's rounding. Ours should never be weaker; where images fall to one side alone, both
numbers are printed. Process time on one thread.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from thesis_kit.attacks.norms import NORMS
from thesis_kit.data.digits import digits
from thesis_kit.data.parts import Part
from thesis_kit.data.scenes import splits
from thesis_kit.evaluation import robust_accuracy, strong_attacks
from thesis_kit.models import zoo

PEER = "pyautoattack"
RADII = {  # at which the attacks turn some images and not all
    "cnn-digits-natural": {"linf": 0.1, "l2": 0.5},
    "cnn-digits-pgd7": {"linf": 0.2, "l2": 0.6},
    "cnn-digits-squeezed": {"linf": 0.15, "l2": 0.6},
    "cnn-scenes-a-ibp-2": {"linf": 4 / 255, "l2": 0.5},
    "resnet-scenes-a-natural": {"linf": 4 / 255, "l2": 0.5},
    "resnet-scenes-a-pgd7": {"linf": 16 / 255, "l2": 1.0},
}


def test_images(name: str, n: int) -> Part:
    data = zoo.entry(name).data
    return (digits(0) if data == "digits" else splits(0, name=data)).test[:n]


def ours(model: nn.Module, part: Part, eps: float, norm: str) -> Tensor:
    """Which images survive the strong attacks, (n,) bool."""
    return robust_accuracy(model, part, strong_attacks(eps, norm=norm), progress=False).worst


def theirs(model: nn.Module, part: Part, eps: float, norm: str) -> Tensor:
    """Which images survive standard AutoAttack, (n,) bool."""
    from pyautoattack import AutoAttack

    ensemble = AutoAttack(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, seed=0, version="standard")
    with torch.no_grad():
        others = model(part.x[:1]).shape[1] - 1
    ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = min(9, others)
    x_adv, _ = ensemble.run_standard_evaluation(part.x, part.y, batch_size=len(part))
    inside = NORMS[norm].size(x_adv.double() - part.x.double()) <= eps * (1 + 1e-5) + 1e-7
    inside &= ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)
    with torch.no_grad():
        turned = model(x_adv).argmax(dim=1) != part.y
        wrong = model(part.x).argmax(dim=1) != part.y
    return ~(wrong | (turned & inside))


def timed(
    attack: Callable[..., Tensor], model: nn.Module, part: Part, eps: float, norm: str
) -> tuple[Tensor, float]:  # fmt: skip
    start = time.process_time()
    return attack(model, part, eps, norm), time.process_time() - start


def compare(name: str, norm: str, n: int) -> int:
    """Print one row; return by how many survivors ours are more."""
    model, part, eps = zoo.load(name).eval(), test_images(name, n), RADII[name][norm]
    (mine, my_seconds), (other, other_seconds) = (timed(attack, model, part, eps, norm) for attack in (ours, theirs))
    print(
        f"{name:<25} {norm:<5} {eps:<6.3g} {len(part):>6} {int(mine.sum()):>9} {int(other.sum()):>7} "
        f"{int((other & ~mine).sum()):>10} {int((mine & ~other).sum()):>12} {my_seconds:>9.0f} {other_seconds:>7.0f}",
        flush=True,
    )
    return int(mine.sum()) - int(other.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="test images a network")
    parser.add_argument("--networks", nargs="*", default=list(RADII), choices=list(RADII), help="of the zoo")
    parser.add_argument("--norms", nargs="*", default=["linf", "l2"], choices=["linf", "l2"])
    options = parser.parse_args()
    try:
        version = importlib.metadata.version(PEER)
    except importlib.metadata.PackageNotFoundError:
        print(f"AutoAttack is not installed: pip install {PEER}")
        return
    torch.set_num_threads(1)
    print(f"python {platform.python_version()}, torch {torch.__version__}, {PEER} {version}, threads 1")
    print(
        f"{'network':<25} {'norm':<5} {'eps':<6} {'images':>6} {'survivors':>9} {'theirs':>7} {'only ours':>10} "
        f"{'only theirs':>12} {'seconds':>9} {'theirs':>7}"
    )
    weaker = [compare(name, norm, options.images) for name in options.networks for norm in options.norms]
    print(
        f"ours leave more images in {sum(more > 0 for more in weaker)} of {len(weaker)} rows, {sum(weaker):+d} in all"
    )


if __name__ == "__main__":
    main()
