"""How large chapter 4 runs: the columns small, record and full.

``small`` is what a notebook does live on two cores; ``record`` what the claims rest on; ``full`` a GPU and real data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from thesis_kit.chapters.tasks import Task
from thesis_kit.data.photos import IMAGENETTE_IN_IMAGENET
from thesis_kit.models import zoo


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
            classes=IMAGENETTE_IN_IMAGENET,
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

LITE = MappingProxyType({f"lite{n}": f"efficientnet-lite{n}" for n in range(3)})


@dataclass(frozen=True)
class Real:
    """Chapter 4 on real networks of ImageNet, judged by others of their family.

    ``networks`` are EfficientNet-Lite's under the names of the chapter's arms; ``weights`` the SHA-256 of each.
    ``classes`` are every 62nd, a rule that looks at none of them; ``shown`` are ones that everyone knows by sight,
    drawn for the chapter's pictures, ``draws`` times each, and judged in no claim. ``trial_classes`` lie between, for
    penalties to be tuned on. All settings were chosen on the first three of ``shown``.

    A cell is one drawing of every class. An inversion has seven stages of ``steps`` steps of ``copies`` copies with the
    rate ``lr``; ``long`` and ``published`` have more and shorter ones, the last for the classes that are ``pictured``.
    Fourier canvases take ``fourier_lr``. A pass has ``batch`` images, which on one core is faster than more. Judges
    also see each drawing blurred by ``blur`` of its side and with its pixels brought to ``mean`` and ``deviation``.

    Arms have a drawing of a class for each of ``seeds``, and what only stands beside others as many as ``few_seeds``
    says. One core takes about 7 s for a drawing by 40 steps a stage, 4 s by cross-entropy alone, 16 s at as many passes
    or without growing, and 70 s by the published steps.
    """

    networks: MappingProxyType = field(default_factory=lambda: LITE)
    weights: MappingProxyType = field(
        default_factory=lambda: MappingProxyType({name: zoo.entry(name).sha256 for name in LITE.values()})
    )
    size: int = 128
    large: int = 224
    classes: tuple[int, ...] = tuple(range(0, 931, 62))
    shown: tuple[int, ...] = (340, 985, 980, 1, 951, 292)
    draws: int = 4
    trial_classes: tuple[int, ...] = (31, 279, 527, 775)
    steps: int = 40
    copies: int = 4
    lr: float = 0.1
    long: tuple[int, float] = (100, 0.04)
    published: tuple[int, float] = (400, 0.01)
    many: int = 16
    fourier_steps: int = 256
    fourier_lr: float = 0.05
    batch: int = 16
    blur: float = 0.006
    mean: float = 0.45
    deviation: float = 0.23
    trial_lrs: tuple[float, ...] = (0.05, 0.2)
    trial_tvs: tuple[float, ...] = (1e-3, 1e-1)
    trial_norms: tuple[float, ...] = (1e-5, 1e-2)
    trial_batchnorms: tuple[float, ...] = (5e-2, 5e-1)
    pictured: tuple[int, ...] = (0, 6, 7, 15)
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    few_seeds: MappingProxyType = field(
        default_factory=lambda: MappingProxyType(
            {
                **dict.fromkeys(("shown@lite0", "shown-ce@lite0", "shown-fourier@lite0"), 1),
                **dict.fromkeys(("pii=224@lite0", "published@lite0"), 1),
            }
        )
    )


REAL = MappingProxyType(
    {
        "small": Real(classes=(340, 985, 980), seeds=(0,)),
        "record": Real(),
        "full": Real(size=224, steps=400, lr=0.01, copies=16),
    }
)

TABLES = MappingProxyType({"inversion": INVERSION, "inversion on real networks": REAL})
