"""How large each chapter runs: one frozen table a chapter, with the columns small, record and full.

``small`` is what a notebook does live on two cores; ``record`` what the claims rest on; ``full`` a GPU and real data. A
notebook reads its numbers from here and never asks which profile it is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from types import MappingProxyType

from thesis_kit.attacks.shadow import PUBLISHED, ShadowConstants

PROFILES = ("small", "record", "full")


@dataclass(frozen=True)
class Defenses:
    """Chapter 1. ``eps`` is the radius trained and tested at; ``learning_rates`` are the trials every method gets.

    Catastrophic overfitting is looked for at a larger radius, ``collapse_eps``, and on images enlarged to
    ``enlarged_size`` pixels, where an attack has more directions (trained with Adam at a constant rate).
    """

    data: str = "digits"
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    model: str = "small_cnn"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 0.15
    updates: int = 1000
    batch_size: int = 128
    schedule: str = "one-cycle"
    weight_decay: float = 5e-4
    learning_rate: float = 0.1
    learning_rates: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    collapse_eps: float = 0.25
    enlarged_size: int = 28
    enlarged_eps: float = 0.15
    enlarged_updates: int = 400
    enlarged_learning_rate: float = 0.003
    enlarged_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    seeds: tuple[int, ...] = (0,)
    queries: int = 1000
    strong_steps: int = 100
    strong_restarts: int = 5
    images_shown: int = 6


DEFENSES = MappingProxyType(
    {
        "small": Defenses(),
        "record": Defenses(seeds=tuple(range(10)), queries=5000),
        "full": Defenses(
            data="cifar10",
            data_options=MappingProxyType({"n_test": 1000}),
            model="preact_resnet18",
            model_options=MappingProxyType({}),
            eps=8 / 255,
            collapse_eps=16 / 255,
            updates=4000,
        ),
    }
)


@dataclass(frozen=True)
class Task:
    """A data set of ``data.load`` under the options that a chapter uses it with, and how many classes it has."""

    data: str
    n_classes: int
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))


def _scenes(name: str, n_classes: int, **options: int | None) -> Task:
    standard = {"size": 32, "n_train": None, "n_validation": 500, "n_test": 500}
    return Task(f"scenes.v1-{name}", n_classes, MappingProxyType({**standard, **options}))


@dataclass(frozen=True)
class Transfer:
    """Chapter 1's second half: from a robust source to a target task.

    A target's training part is stored, a source's may be an endless stream. ``members`` are the zoo's names of source
    networks, for what runs live; ``penalties`` those of a linear head; ``strengths`` the weights of distillation, in
    units of 1/E‖z₀‖₁; ``per_class`` the numbers of few images; ``few_trials`` the updates and the learning rate of
    each trial that Free training on few images gets.
    """

    source: Task = field(default_factory=lambda: _scenes("a", 8))
    target: Task = field(default_factory=lambda: _scenes("b", 8, n_train=4000))
    moved_source: Task | None = field(default_factory=lambda: _scenes("outdoors", 16))
    moved_target: Task | None = field(default_factory=lambda: _scenes("indoors", 16, n_train=4000))
    members: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {arm: f"resnet-scenes-a-{arm.replace('-', '')}" for arm in ("natural", "free-8", "pgd-7")}
        )
    )
    model: str = "small_resnet"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 8 / 255
    batch_size: int = 128
    source_updates: int = 1500
    source_lr: float = 0.1
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    depth_updates: int = 500
    depth_lr: float = 0.1
    distill_updates: int = 1000
    distill_lr: float = 0.003
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    few_trials: tuple[tuple[int, float], ...] = ((400, 0.02), (400, 0.1), (1200, 0.05))
    per_class: tuple[int, ...] = (5, 25, 100, 250)
    seeds: tuple[int, ...] = (0,)


TRANSFER = MappingProxyType(
    {
        "small": Transfer(),
        "record": Transfer(
            source=_scenes("a", 8, n_test=2000),
            target=_scenes("b", 8, n_train=4000, n_test=2000),
            moved_source=_scenes("outdoors", 16, n_test=2000),
            moved_target=_scenes("indoors", 16, n_train=4000, n_test=2000),
            seeds=(0, 1, 2, 3),
        ),
        "full": Transfer(
            source=Task("cifar100", 100, MappingProxyType({"n_test": 1000})),
            target=Task("cifar10", 10, MappingProxyType({"n_test": 1000})),
            moved_source=None,
            moved_target=None,
            members=MappingProxyType({}),
            model="wrn_32_10",
            model_options=MappingProxyType({}),
            source_updates=80_000,
            distill_updates=20_000,
            distill_lr=0.001,
        ),
    }
)

_ECONOMICAL, _FINAL = ShadowConstants(steps=30, draws=32), ShadowConstants(steps=70, draws=80)
_FAINT = ShadowConstants(steps=100, step_size=0.03, start=0.1)


@dataclass(frozen=True)
class Certificates:
    """Chapter 2. Certificates rest on ``n0``, ``n`` and ``alpha``; ``n_choose`` samples choose the images to attack.

    The Shadow Attack tries every wrong class with ``constants`` and goes on with the ``finalists`` best of them, by
    ``n_select`` samples, with ``final``. Noise arms use ``noise_steps`` steps and ``noise_draws`` draws at
    ``sigma``. Every seed has a block of test images: ``images`` certified ones of it are attacked, ``images_few`` of
    these at the published size and with the budgets ``sizes``, and its first ``images_all`` are certified whatever
    comes. Networks with interval bounds train for boxes ``interval_margin`` times as large as ``interval_eps``.
    """

    task: Task = field(default_factory=lambda: _scenes("a", 8))
    model: str = "small_resnet"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    updates: int = 1500
    batch_size: int = 128
    lr: float = 0.1
    sigmas: tuple[float, ...] = (0.12, 0.25, 0.5, 1.0)
    sigma: float = 0.25
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    n_choose: int = 1000
    n_select: int = 200
    constants: ShadowConstants = _ECONOMICAL
    finalists: int = 2
    final: ShadowConstants = _FINAL
    noise_steps: int = 100
    noise_draws: int = 64
    inside_steps: int = 40
    inside_restarts: int = 2
    sizes: tuple[int, ...] = (100, 1000)
    block: int = 100
    images: int = 4
    images_all: int = 20
    images_few: int = 2
    interval_model: str = "strided_cnn"
    interval_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    interval_eps: tuple[float, ...] = (2 / 255, 8 / 255)
    interval_margin: float = 1.1
    interval_updates: int = 1000
    interval_lr: float = 0.003
    interval_constants: ShadowConstants = _FAINT
    interval_images: int = 20
    seeds: tuple[int, ...] = (0,)


CERTIFICATES = MappingProxyType(
    {
        "small": Certificates(
            constants=replace(_ECONOMICAL, draws=16),
            finalists=1,
            final=ShadowConstants(steps=40, draws=32),
            images=11,
            images_few=3,
        ),
        "record": Certificates(
            task=_scenes("a", 8, n_test=2000),
            n=10_000,
            sizes=(100, 1000, 10_000, 100_000),
            block=400,
            images=40,
            images_all=100,
            images_few=7,
            interval_images=200,
            seeds=(0, 1, 2),
        ),
        "full": Certificates(
            task=Task("cifar10", 10, MappingProxyType({"n_test": 500})),
            model="preact_resnet18",
            model_options=MappingProxyType({}),
            updates=11_250,
            batch_size=400,
            n=100_000,
            sizes=(100, 1000, 10_000, 100_000),
            constants=replace(PUBLISHED["scripts"], steps=100),
            finalists=1,
            final=replace(PUBLISHED["scripts"], steps=200),
            block=500,
            images=500,
            images_all=500,
            images_few=20,
            interval_constants=PUBLISHED["crown-ibp"],
            interval_images=500,
        ),
    }
)


@dataclass(frozen=True)
class Regularization:
    """Chapter 3. With ``trials`` every arm tries a grid of settings: over its own strength and that of the noise, or
    over learning rates where it has only one knob. Strengths of smoothing are ``alphas``; of squeezing ``betas``, in
    Frobenius' normalization at ``batch_size``; of similarity and pairing ``similarities`` and ``pairings``; of noise
    ``sigmas``. ``alpha``, ``beta`` and ``sigma`` are the one setting where nothing is chosen. Logits are divided by
    ``temperatures``; ``radii`` are tried to find where an attack first succeeds.
    """

    data: str = "digits"
    data_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))
    n_classes: int = 10
    model: str = "small_cnn"
    model_options: MappingProxyType = field(default_factory=lambda: MappingProxyType({"width": 16}))
    eps: float = 0.15
    updates: int = 1000
    batch_size: int = 128
    weight_decay: float = 5e-4
    lr: float = 0.12
    learning_rates: tuple[float, ...] = (0.03, 0.06, 0.12, 0.24)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 5e-4, 2e-3)
    robust_weight_decays: tuple[float, ...] = (5e-4, 2e-3)
    step_sizes: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    alphas: tuple[float, ...] = (0.1, 0.3, 0.6, 0.9)
    betas: tuple[float, ...] = (0.003, 0.01, 0.03, 0.06)
    similarities: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    pairings: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    sigmas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    alpha: float = 0.3
    beta: float = 0.03
    sigma: float = 0.3
    temperatures: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
    radii: tuple[float, ...] = tuple(round(0.02 * 1.16**k, 4) for k in range(25))
    strong_steps: int = 100
    strong_restarts: int = 5
    queries: int = 1000
    trials: bool = False
    images: int | None = None
    seeds: tuple[int, ...] = (0,)


REGULARIZATION = MappingProxyType(
    {
        "small": Regularization(),
        "record": Regularization(queries=5000, trials=True, seeds=tuple(range(10))),
        "full": Regularization(
            data="cifar10",
            data_options=MappingProxyType({"n_test": 1000}),
            model="preact_resnet18",
            model_options=MappingProxyType({}),
            eps=8 / 255,
            updates=6000,
            lr=0.1,
            radii=tuple(round(0.002 * 1.16**k, 5) for k in range(25)),
            images=1000,
        ),
    }
)

REGULARIZATION_ON_SCENES = Regularization(
    data="scenes.v1-a",
    data_options=_scenes("a", 8, n_test=2000).data_options,
    n_classes=8,
    model="small_resnet",
    eps=8 / 255,
    updates=1500,
    lr=0.1,
    sigma=0.12,
    radii=tuple(round(0.002 * 1.16**k, 5) for k in range(25)),
    images=300,
    seeds=(0, 1, 2),
)


@dataclass(frozen=True)
class Inversion:
    """Chapter 4. ``members`` are the networks that are inverted and ``verifiers`` those that only judge, under the
    names of the chapter's arms: of the zoo, or of timm with its weights. ``classes`` are the logits of the task's
    labels.

    An inversion has seven stages of ``steps`` steps and ``copies`` copies an image, ``each`` images of every class.
    Where there are fewer steps than the published 400 they are longer: ``lr`` times steps is the published 0.01 · 400,
    so that a pixel can travel as far. Ensembles are compared at the sizes ``ensembles``.

    Total variation is given the weights ``tvs``, the six largest of the published eleven, a decade apart. At the first
    its gradient is a ten-thousandth of that of a cross-entropy that is not yet small; at the last even a faint image
    costs more than its class can gain, which is log(classes) at most. ``added_tv`` and ``added_batchnorm`` are
    published weights for adding a penalty to the method.

    Penalties without the method are tuned on ``each_trial`` images of every class, in as many trials for TV + ℓ₂
    (``trial_tvs`` × ``trial_norms``) as for DeepInversion (``trial_batchnorms`` × ``trial_few_tvs``, with the first of
    ``trial_norms``), each with every rate of ``trial_lrs``. Pictures are kept of all labels, or of ``pictured`` alone
    where something is different. Methods that cost much and only stand beside others have the first of the seeds alone,
    as many as ``few_seeds`` says.
    """

    task: Task = field(
        default_factory=lambda: Task(
            "scenes.v1",
            16,
            MappingProxyType({"size": 64, "n_train": None, "n_validation": 1, "n_test": 500}),
        )
    )
    size: int = 64
    classes: tuple[int, ...] = tuple(range(16))
    members: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {
                "resnet": "resnet-scenes64",
                "vit": "vit-scenes64",
                "mixer": "mixer-scenes64",
                "convnext": "convnext-scenes64",
                "deit": "deit-scenes64",
                "robust": "resnet-scenes64-pgd",
                "resnet-plain": "resnet-scenes64-plain",
                "vit-plain": "vit-scenes64-plain",
                "mixer-plain": "mixer-scenes64-plain",
            }
        )
    )
    verifiers: MappingProxyType = field(
        default_factory=lambda: MappingProxyType({"natural": "verifier-scenes64", "robust": "verifier-scenes64-pgd"})
    )
    steps: int = 40
    copies: int = 8
    lr: float = 0.1
    each: int = 1
    ensembles: tuple[int, ...] = (1, 8, 32)
    tvs: tuple[float, ...] = (5e-4, 5e-3, 5e-2, 5e-1, 5.0, 50.0)
    added_tv: float = 5e-4
    added_batchnorm: float = 0.05
    trial_lrs: tuple[float, ...] = (0.05, 0.2)
    trial_tvs: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    trial_norms: tuple[float, ...] = (1e-5, 1e-2)
    trial_batchnorms: tuple[float, ...] = (5e-3, 5e-2, 5e-1, 5.0)
    trial_few_tvs: tuple[float, ...] = (1e-3, 1e-1)
    each_trial: int = 2
    pictured: tuple[int, ...] = (10, 11, 1, 4)
    seeds: tuple[int, ...] = (0,)
    few_seeds: MappingProxyType = field(default_factory=lambda: MappingProxyType({"copies=32": 2, "published": 1}))


INVERSION = MappingProxyType(
    {
        "small": Inversion(copies=4),
        "record": Inversion(each=2, seeds=(0, 1, 2, 3)),
        "full": Inversion(
            task=Task("imagenette", 10, MappingProxyType({"size": 224, "n_test": 500})),
            size=224,
            classes=(0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
            members=MappingProxyType(
                {
                    "resnet": "resnet50.a1_in1k",
                    "vit": "vit_base_patch16_224.augreg_in21k_ft_in1k",
                    "mixer": "mixer_b16_224.goog_in21k_ft_in1k",
                    "convnext": "convnext_tiny.fb_in1k",
                    "deit": "deit_small_patch16_224.fb_in1k",
                }
            ),
            verifiers=MappingProxyType({"natural": "regnety_032.ra_in1k", "robust": "inception_v3.tf_adv_in1k"}),
            steps=400,
            copies=16,
            lr=0.01,
            pictured=(0, 3, 6),
        ),
    }
)

CHAPTERS = MappingProxyType(
    {
        "certificates": CERTIFICATES,
        "defenses": DEFENSES,
        "inversion": INVERSION,
        "regularization": REGULARIZATION,
        "transfer": TRANSFER,
    }
)


def plain(settings: object) -> object:
    """A table of settings as JSON has it."""
    if is_dataclass(settings):
        return {key: plain(value) for key, value in vars(settings).items()}
    if isinstance(settings, Mapping):
        return {key: plain(value) for key, value in settings.items()}
    return [plain(value) for value in settings] if isinstance(settings, tuple) else settings
