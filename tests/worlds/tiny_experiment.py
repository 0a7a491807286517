"""An experiment of milliseconds, in a module of its own so that worker processes can import it."""

import os
import time

import numpy as np

from thesis_kit.ledger.runner import Experiment

ARMS = {"natural": 0.3, "free-8": 0.7, "pgd-7": 0.72}
N = 40


def run(arm, seed, config):
    """Outcomes that depend on arm and seed alone; ``config`` may ask for a rest, a failure or a sudden death."""
    time.sleep(config.get("rest", 0))
    if [arm, seed] == config.get("fails"):
        raise RuntimeError("the loss was NaN")
    if [arm, seed] == config.get("dies"):
        os._exit(9)
    rng = np.random.default_rng([seed, len(arm)])
    cost = 8 if arm == "pgd-7" else 1
    return {
        "group": f"tiny.v1/fold{seed % 2}",
        "n": N,
        "outcomes": {name: (rng.random(N) < ARMS[arm]).tolist() for name in ("N", "R", "worst")},
        "scalars": {
            "passes": 100 * cost,
            "passes_per_update": cost,
            "train_seconds": 1.0 * cost,
            "threads": _threads(),
        },
        "curves": {"R": [[0, 0.1], [1, ARMS[arm]]]},
        "budget": {"train": {"forward": 100 * cost, "backward": 100 * cost}},
        "seconds": config.get("rest", 0.0),
    }


def _threads():
    import torch

    return torch.get_num_threads()


def experiment(seeds=4, **config):
    """The experiment ``defenses.digits`` in miniature."""
    return Experiment(
        name="defenses",
        arena="digits",
        config=config,
        data_hashes=lambda: {"tiny.v1": "0" * 64},
        cells=tuple((arm, seed) for arm in ARMS for seed in range(seeds)),
        run=run,
        expected_seconds=lambda arm: 90.0,
    )


def document(arms, *, seeds=4, n=200, scalars=None, planned=None):
    """A result document with outcomes drawn at given rates: ``arms`` maps arm → measure → rate."""
    from thesis_kit.ledger.results import SCHEMA, pack

    def cell(arm, seed):
        rng = np.random.default_rng([seed % 2, 7])  # arms of a seed meet the same images
        bits = {m: pack(rng.random(n) < rate) for m, rate in arms[arm].items()}
        return {"arm": arm, "seed": seed, "group": f"tiny.v1/fold{seed % 2}", "n": n, "outcomes": bits,
                "scalars": {k: v[seed] if isinstance(v, list) else v for k, v in (scalars or {}).get(arm, {}).items()},
                "curves": {}, "budget": {}, "seconds": 1.0}  # fmt: skip

    return {
        "schema": SCHEMA, "experiment": "defenses", "arena": "digits", "profile": "record", "command": "thesis-kit",
        "recorded": "2026-01-01", "code": {"version": "0", "module": "tiny_experiment", "modules": "0" * 64},
        "data": {}, "config": {}, "config_hash": "0" * 64,
        "machine": {"processor": "test", "cores": 1, "threads": 1, "device": "cpu", "python": "3", "torch": "2"},
        "planned": planned or {arm: list(range(seeds)) for arm in arms}, "summary": [], "seconds": 1.0,
        "cells": [cell(arm, seed) for arm in arms for seed in range(seeds)],
    }  # fmt: skip
