"""Every chapter's arms in miniature: the recorded arms with settings so small that all of them run in seconds.

A miniature is recorded by the runner itself, once for all test processes, and read back as any recording is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from thesis_kit.attacks.shadow import ShadowConstants
from thesis_kit.chapters import world as shared
from thesis_kit.chapters.certificates import arms as certificates
from thesis_kit.chapters.certificates.settings import CERTIFICATES
from thesis_kit.chapters.clip import arms as clip
from thesis_kit.chapters.clip import world as clip_world
from thesis_kit.chapters.clip.settings import CLIP
from thesis_kit.chapters.defenses import arms as defenses
from thesis_kit.chapters.defenses import transfer_arms
from thesis_kit.chapters.defenses.settings import DEFENSES, TRANSFER
from thesis_kit.chapters.features import arms as features
from thesis_kit.chapters.features import world as features_world
from thesis_kit.chapters.features.settings import CLOTHES, FEATURES
from thesis_kit.chapters.inversion import arms as inversion
from thesis_kit.chapters.inversion import real_arms, real_world
from thesis_kit.chapters.inversion.settings import INVERSION, REAL
from thesis_kit.chapters.regularization import arms as regularization
from thesis_kit.chapters.regularization.settings import REGULARIZATION, REGULARIZATION_ON_SCENES
from thesis_kit.chapters.sonification import arms as sonification
from thesis_kit.chapters.sonification import made_sounds
from thesis_kit.chapters.sonification import world as sonification_world
from thesis_kit.chapters.sonification.settings import REAL as REAL_SPEECH
from thesis_kit.chapters.sonification.settings import SONIFICATION
from thesis_kit.data import Part, Splits, digits, load
from thesis_kit.evaluation import class_regions
from thesis_kit.ledger.arm import Experiment
from thesis_kit.ledger.cells import unpack
from thesis_kit.ledger.memory import FOLDER_VARIABLE
from thesis_kit.ledger.results import Result, load_result
from thesis_kit.ledger.runner import run_experiment
from thesis_kit.models import anatomy, build, build_clip, zoo
from thesis_kit.models.speech import Jasper
from thesis_kit.zookeeping import making
from thesis_kit.zookeeping.plans import class_names_of
from thesis_kit.zookeeping.recipe import Recipe
from thesis_kit.zookeeping.recipes import RECIPES


def scenes(settings, n_train=None, n_validation=8, n_test=40):
    """A task with few small scenes."""
    options = {"size": 16, "n_train": n_train, "n_validation": n_validation, "n_test": n_test}
    return replace(settings, data_options=MappingProxyType(options))


NARROW = MappingProxyType({"width": 4})
FEW = ShadowConstants(steps=3, draws=4)

TINY_DEFENSES = replace(
    DEFENSES["record"], model_options=NARROW, updates=24, enlarged_updates=24, enlarged_size=10, seeds=(0,),
    enlarged_seeds=(0,), learning_rates=(0.05, 0.2), queries=4, strong_steps=2, strong_restarts=1,
)  # fmt: skip
_T = TRANSFER["record"]
TINY_TRANSFER = replace(
    _T, source=scenes(_T.source, None, 96, 24), target=scenes(_T.target, 320, 96, 24),
    moved_source=scenes(_T.moved_source, None, 96, 24), moved_target=scenes(_T.moved_target, 320, 96, 24),
    batch_size=32, source_updates=16, model_options=NARROW, penalties=(1e-2, 1e-1), depth_updates=3, distill_updates=3,
    strengths=(0.1, 10.0), few_trials=((8, 0.02), (8, 0.05)), per_class=(5, 25), seeds=(0,),
)  # fmt: skip
_C = CERTIFICATES["record"]
TINY_CERTIFICATES = replace(
    _C, task=scenes(_C.task), model_options=NARROW, updates=60, batch_size=32, n=100, n_choose=60,
    n_select=60, constants=FEW, final=FEW, noise_steps=2, noise_draws=4, inside_steps=3, inside_restarts=1,
    sizes=(60, 100), sigmas=(0.12, 0.25), block=20, images=4, images_all=6, images_few=2,
    interval_options=MappingProxyType({"width": 4, "size": 16}), interval_updates=8, interval_images=5,
    interval_constants=FEW, interval_eps=(2 / 255,), seeds=(0, 1),
)  # fmt: skip
TINY_REGULARIZATION = replace(
    REGULARIZATION["record"], model_options=NARROW, updates=12, batch_size=32, learning_rates=(0.05, 0.1),
    weight_decays=(0.0, 5e-4), robust_weight_decays=(5e-4,), step_sizes=(0.25,), alphas=(0.1, 0.5), betas=(0.01, 0.05),
    similarities=(0.1,), pairings=(0.3,), sigmas=(0.2, 0.4), temperatures=(0.01, 1.0), radii=(0.05, 0.15),
    strong_steps=2, strong_restarts=2, queries=3, images=24, seeds=(0,),
)  # fmt: skip
TINY_ON_SCENES = replace(
    REGULARIZATION_ON_SCENES, model="small_cnn", model_options=NARROW, updates=2, batch_size=8,
    data_options=MappingProxyType({"size": 16, "n_train": None, "n_validation": 8, "n_test": 20}),
    temperatures=(0.01, 1.0), radii=(0.01, 0.1), strong_steps=2, strong_restarts=2, queries=3, images=10, seeds=(0,),
)  # fmt: skip
_I = INVERSION["record"]
MEMBERS = ("resnet", "vit", "mixer", "convnext", "deit", "robust", "resnet-plain", "vit-plain", "mixer-plain")
TINY_INVERSION = replace(
    _I, task=replace(_I.task, data_options=MappingProxyType({**_I.task.data_options, "size": 16, "n_test": 200})),
    size=16, classes=(0, 1, 2), members=MappingProxyType({name: f"tiny-{name}" for name in MEMBERS}),
    verifiers=MappingProxyType({"natural": "tiny-verifier", "robust": "tiny-verifier-pgd"}), steps=1, copies=2,
    ensembles=(1, 2, 32), few_seeds=MappingProxyType({"published": 1}), tvs=(0.01, 1.0), trial_lrs=(0.1,),
    trial_tvs=(0.01, 1.0), trial_norms=(1e-5, 1e-2), trial_batchnorms=(0.01, 1.0), pictured=(0, 2), each=2,
    each_trial=1, seeds=(0, 1),
)  # fmt: skip

TINY_REAL = replace(
    REAL["record"], size=16, large=24, classes=(0, 1, 2), shown=(3, 4), trial_classes=(5, 6), steps=1, copies=2, many=3,
    long=(2, 0.04), published=(3, 0.01), fourier_steps=2, trial_lrs=(0.1,), pictured=(0, 2), seeds=(0,),
)  # fmt: skip


def small_network(name, seed=0):
    """In place of a network of ImageNet: as many classes, hardly any weights."""
    return build("small_resnet", n_classes=1000, in_channels=3, width=4, seed=seed + int(name[-1])).eval()


_F = FEATURES["record"]
TINY_FEATURES = replace(
    _F, task=scenes(_F.task), correlated=scenes(_F.correlated), encoder="tiny-encoder", images=24, strongest=4,
    members=MappingProxyType({name: f"tiny-{name}" for name in _F.members}), units_each=2, steps=2, copies=1,
    seeds=MappingProxyType(dict.fromkeys(_F.members, (1,))), opponents=3, cutoffs=(2, 4),
)  # fmt: skip

_F = CLOTHES["record"]
TINY_CLOTHES = replace(
    _F, members=MappingProxyType({name: f"tiny-{name}-on-clothes" for name in _F.members}), images=24, strongest=4,
    encoder="tiny-encoder-on-clothes", seeds=MappingProxyType(dict.fromkeys(_F.members, (1,))), cutoffs=(2, 4),
)  # fmt: skip

_L = CLIP["record"]
TINY_CLIP = replace(
    _L, size=40, images=48, fitted=320, bins=2, shuffles=2, strongest=4, steps=(1, 1, 1), copies=1, each=1, shapes=3,
    colors=2, textures=1, radii=(0.01, 0.1), attacked=8, tried=6, seeds=MappingProxyType(dict.fromkeys(_L.seeds, (0,))),
)  # fmt: skip
_HEARD = {"words": ("one", "two", "seven", "bird"), "voices": ("en-us", "en-us+f2", "en-gb+m1"), "pitches": (30, 70)}
_HEARD |= {"all_words": _HEARD["words"], "reader_voices": ("en-us", "en-us+f2"), "judge": "tiny-judge", "rebuilt": 4,
           "rebuild_steps": 2, "units_each": 2, "optimum_steps": 1, "seconds": 0.25}  # fmt: skip
TINY_SPEECH = replace(SONIFICATION["record"], member="tiny-jasper", seeds=(0, 1), **_HEARD)
TINY_REAL_SPEECH = replace(REAL_SPEECH["record"], member="tiny-whisper", **_HEARD)


def tiny_recognizer(name, seed, *_):
    """In place of a recognizer of speech: a few channels with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Jasper(widths=(8, 8, 8), kernels=(3, 5, 5), first=8, last=8, bands=16).eval()


def tiny_twin(name, seed, device="cpu"):
    """A twin with random weights, of the recipe's teacher."""
    tower = {"size": 40, "channels": [4, 8, 12], "width": 12, "depth": 3, "heads": 2}
    if RECIPES[name].kind == "image-text pair":
        return build_clip(seed=seed, tower="stem_vit", image_options=tower, width=48, depth=1).eval()
    outputs = len(class_names_of(RECIPES[name]))
    return build("stem_vit", n_classes=outputs, seed=seed, own_head=True, **tower).eval()


def _with(module, name, value, make):
    """What ``make`` returns while a constant of a module has another value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, value)
        return make()


@cache
def experiments() -> dict[str, Experiment]:
    """The miniatures by the names of the recordings they are of."""
    published = {"scripts": ShadowConstants(steps=5, draws=6)}
    few = _with(certificates, "PUBLISHED", published, lambda: certificates.arms(TINY_CERTIFICATES))
    short = _with(inversion, "PUBLISHED", {"steps": 3, "lr": 0.01}, lambda: inversion.arms(TINY_INVERSION))
    found = [
        Experiment("certificates", "scenes", few),
        Experiment("clip", "scenes", clip.arms(TINY_CLIP)),
        Experiment("defenses", "digits", defenses.arms(TINY_DEFENSES)),
        Experiment("defenses", "scenes", transfer_arms.arms(TINY_TRANSFER)),
        Experiment("inversion", "real", real_arms.arms(TINY_REAL)),
        Experiment("features", "real", features.arms_on_clothes(TINY_CLOTHES)),
        Experiment("features", "scenes", features.arms(TINY_FEATURES)),
        Experiment("inversion", "scenes", short),
        Experiment("regularization", "digits", regularization.arms_on_digits(TINY_REGULARIZATION)),
        Experiment("regularization", "scenes", regularization.arms_on_scenes(TINY_ON_SCENES)),
        Experiment("sonification", "real", sonification.arms(TINY_REAL_SPEECH)),
        Experiment("sonification", "speech", sonification.arms(TINY_SPEECH)),
    ]
    return {experiment.id: experiment for experiment in found}


NAMES = [*experiments()]


def few_digits(seed):
    splits = digits(seed)
    return type(splits)(splits.train[:300], splits.validation[:30], splits.test[:40])


def tiny_network(name: str, seed: int = 0):
    """A ViT of 16 pixels with three blocks, or a small CNN, with random weights, for scenes or clothes."""
    classes, channels = (10, 1) if "clothes" in name else (16, 3)
    if "vit" not in name:
        return build("small_cnn", n_classes=classes, in_channels=channels, width=4, seed=seed).eval()
    tiny = {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 3, "num_heads": 2}
    return build("vit_tiny_patch16_224", n_classes=classes, in_channels=channels, seed=seed, **tiny).eval()


def tiny_clothes(*_, **__) -> Splits:
    """Noise of several brightnesses in place of photographs, three of each class."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, 16, 16, generator=random) * torch.rand(30, 1, 1, 1, generator=random)
    part = Part(x, torch.arange(30) % 10, torch.arange(30))
    return Splits(part, part, part)


def tiny_recipe(name: str, seed: int) -> Recipe:
    """Four updates of a small network on scenes."""
    kinds = {"resnet": ("small_resnet", {"width": 4}), "cnn": ("small_cnn", {"width": 4})}
    mixer = ("small_mixer", {"size": 16, "patch": 4, "width": 16, "depth": 1})
    kinds |= dict.fromkeys(("vit", "mixer", "deit"), mixer)
    architecture, options = kinds.get(name.split("-")[1], kinds["cnn"])
    data = {"size": 16, "n_train": 40, "n_validation": 1, "n_test": 8}
    return Recipe(
        title="A tiny network.", data="scenes.v1", data_options=data, architecture=architecture, options=options,
        method="natural", updates=4, lr=0.05, eps=(), batch_size=8, seed=seed,
    )  # fmt: skip


def opinionated(load_member, images):
    """``zoo.load`` with verifiers that answer one of the three inverted classes, now this and now that."""

    def loaded(name, **knobs):
        model = load_member(name, **knobs)
        if "verifier" in name:
            with torch.no_grad():
                bias = anatomy.head(model).bias
                bias -= model(images).mean(dim=0)
                bias[:3] += 100
        return model

    return loaded


@contextlib.contextmanager
def surroundings(name: str, folder: Path) -> Iterator[Experiment]:
    """The miniature of a recording, with what it needs around it: shared work in ``folder``, few data, a tiny zoo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder / "runs"))
        if name == "clip.scenes":
            patch.setattr(clip_world, "taught", tiny_twin)
            patch.setattr(clip_world, "untaught", tiny_twin)
        if name == "defenses.digits":
            patch.setattr(defenses, "digits", few_digits)
        if name.startswith("features."):
            patch.setattr(shared, "load", tiny_clothes)
            patch.setattr(features_world, "taught", lambda name, seed, device: tiny_network(name))
            patch.setattr(features_world, "untaught", lambda name, seed, device: tiny_network(name, seed))
        if name == "inversion.real":
            patch.setattr(zoo, "load", small_network)
            patch.setattr(real_world, "untaught", small_network)
            patch.setattr(real_arms, "class_regions", partial(class_regions, steps=2))
        if name == "inversion.scenes":
            members = folder / "zoo"
            patch.setattr(making, "CHECKPOINTS", folder / "checkpoints")
            for seed, member in enumerate([*TINY_INVERSION.members.values(), *TINY_INVERSION.verifiers.values()]):
                patch.setitem(RECIPES, member, tiny_recipe(member, seed))
                making.make(member, folder=members, device="cpu")
            patch.setattr(zoo, "FOLDER", members)
            splits = cache(lambda seed: load("scenes.v1", seed, **TINY_INVERSION.task.data_options))
            patch.setattr(zoo, "load", opinionated(zoo.load, splits(0).test.x))
            patch.setattr(shared, "load", lambda data, seed, **options: splits(seed))
        if name.startswith("sonification."):
            patch.setattr(sonification_world, "taught", tiny_recognizer)
            patch.setattr(sonification_world, "untaught", tiny_recognizer)
            patch.setattr(made_sounds, "taught", tiny_recognizer)
        yield experiments()[name]


def recorded(name: str, folder: Path) -> Result:
    """All cells of a miniature, recorded by the runner in this process."""
    with surroundings(name, folder) as experiment, ThreadPoolExecutor(1) as pool:
        run_experiment(experiment, folder=folder / "results", executor=pool)
        return load_result(name, folder / "results", experiment)


def plainly(result: Result) -> dict[tuple[str, int], dict]:
    """Cells by arm and seed, outcomes as lists of 0 and 1."""
    return {
        (arm, seed): {**cell, "outcomes": {m: unpack(bits, cell["n"]).tolist() for m, bits in cell["outcomes"].items()}}
        for arm, cells in result.cells.items()
        for seed, cell in cells.items()
    }
