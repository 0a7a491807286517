"""An experiment of milliseconds, in a module of its own so that worker processes can import it without torch."""

import os
import sys
import time
from functools import partial

import numpy as np

from thesis_kit.ledger.arm import Arm, Experiment, Settings
from thesis_kit.ledger.cells import arm_file as file_of
from thesis_kit.ledger.cells import packed, write_rows

RATES = {"natural": 0.3, "free-8": 0.7, "pgd-7": 0.72}
N = 40
MACHINE = {"processor": "test", "cores": 1, "threads": 1, "device": "cpu", "python": "3", "torch": "2"}


def world(seed, settings):
    return seed, settings


def measure(world, *, arm):
    """Outcomes that depend on arm and seed alone; the settings may ask for a rest, a failure or a sudden death."""
    seed, s = world
    time.sleep(s.get("rest", 0))
    if [arm, seed] == s.get("fails"):
        raise RuntimeError("the loss was NaN")
    if [arm, seed] == s.get("dies"):
        os._exit(9)
    rng = np.random.default_rng([seed, len(arm)])
    cost = 8 if arm == "pgd-7" else 1
    return {
        "group": f"tiny.v1/fold{seed % 2}",
        "n": N,
        "outcomes": {name: (rng.random(N) < RATES[arm] + s.get("gain", 0)).tolist() for name in ("N", "R", "worst")},
        "scalars": {
            "passes": 100 * cost,
            "passes_per_update": cost,
            "train_seconds": 1.0 * cost,
            "threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
            "torch": int("torch" in sys.modules),
        },
        "curves": {"R": [[0, 0.1], [1, RATES[arm]]]},
        "budget": {"train": {"forward": 100 * cost, "backward": 100 * cost}},
        "seconds": s.get("rest", 0.0),
    }


def arm(name, seeds=4, version=1, networks=(), **settings):
    seeds = tuple(range(seeds))
    make = partial(measure, arm=name)
    return Arm(name, f"training by {name}", world, make, Settings(settings), seeds, (), networks, version=version)


def experiment(seeds=4, **settings):
    """The experiment ``defenses.digits`` in miniature."""
    return Experiment("defenses", "digits", tuple(arm(name, seeds, **settings) for name in RATES))


def cell(arm, seed, outcomes, *, n=200, scalars=None, **more):
    """A recorded cell as it is kept."""
    record = {
        "arm": arm, "seed": seed, "version": 1, "settings": {}, "data": {}, "networks": {}, "recorded": "2026-01-01",
        "commit": None, "environment": {}, "machine": MACHINE, "seconds": 1.0, "group": f"tiny.v1/fold{seed % 2}",
        "n": n, "outcomes": outcomes, "scalars": scalars or {}, **more,
    }  # fmt: skip
    return packed(record)


def cells(arms, *, seeds=4, n=200, scalars=None):
    """Cells with outcomes drawn at given rates: ``arms`` maps arm → measure → rate."""
    table = {}
    for arm, rates in arms.items():
        table[arm] = {}
        for seed in range(seeds):
            rng = np.random.default_rng([seed % 2, 7])  # arms of a seed meet the same images
            bits = {m: (rng.random(n) < rate).tolist() for m, rate in rates.items()}
            own = {k: v[seed] if isinstance(v, list) else v for k, v in (scalars or {}).get(arm, {}).items()}
            table[arm][seed] = cell(arm, seed, bits, n=n, scalars=own)
    return table


def record(folder, arms, **how):
    """Keep such cells as the recording ``defenses.digits`` in a folder."""
    for arm, found in cells(arms, **how).items():
        write_rows(file_of("defenses.digits", arm, folder), found.values())
