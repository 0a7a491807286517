"""How each member of the zoo is trained, chapter by chapter."""

from __future__ import annotations

from thesis_kit.data.scenes.teachers import HEADS
from thesis_kit.zookeeping.recipe import Recipe, TrainingStage, register

_SCENES_A = {"data": "scenes.v1-a", "data_options": {"size": 32, "n_validation": 1000, "n_test": 2000}}

# The sources of chapter 1's transfer, one network trained in three ways.

_SOURCE = {
    **_SCENES_A,
    "architecture": "small_resnet",
    "options": {"width": 16},
    "updates": 1500,
    "lr": 0.1,
    "eps": (8 / 255,),
}
_SOURCES = {
    "resnet-scenes-a-natural": Recipe(
        title="A small residual network that names shapes (the main object of a scene), trained on clean images.",
        method="natural",
        **_SOURCE,
    ),
    "resnet-scenes-a-free8": Recipe(
        title="A small residual network that names shapes, made robust by Free training with 8 replays.",
        method="free",
        method_options={"eps": 8 / 255, "replays": 8},
        **_SOURCE,
    ),
    "resnet-scenes-a-pgd7": Recipe(
        title="A small residual network that names shapes, made robust by PGD training with 7 steps.",
        method="pgd",
        method_options={"eps": 8 / 255, "steps": 7},
        **_SOURCE,
    ),
}

# Chapter 2: the same network trained on noise, for randomized smoothing.

_SMOOTHED = {
    f"resnet-scenes-a-noise-{sigma:g}": Recipe(
        title=f"A small residual network that names shapes, trained on noise of σ = {sigma:g} to be smoothed.",
        method="gaussian",
        method_options={"sigma": sigma},
        sigma=sigma,
        **{**_SOURCE, "eps": ()},
    )
    for sigma in (0.12, 0.25, 0.5, 1.0)
}

# Chapter 2: small convolutional networks trained on interval bounds, for boxes a tenth larger than those verified.

_BOUNDED_SCENES = {**_SCENES_A, "architecture": "strided_cnn", "options": {"width": 16, "size": 32}}
_BOUNDED_DIGITS = {"data": "digits", "architecture": "strided_cnn", "options": {"width": 16, "size": 8}}
_BOUNDED = {
    f"cnn-{where}-{method}-{name}": Recipe(
        title=f"A small convolutional network for {where}, verifiable at ε = {said} by {method.upper()} training.",
        method=method,
        method_options={"eps": 1.1 * eps},
        eps=(eps,),
        verified=(eps,),
        updates=1000,
        lr=0.003,
        optimizer="adam",
        weight_decay=0.0,
        **settings,
    )
    for where, settings, radii in (
        ("scenes-a", _BOUNDED_SCENES, {"2": ("2/255", 2 / 255), "8": ("8/255", 8 / 255)}),
        ("digits", _BOUNDED_DIGITS, {"0.1": ("0.1", 0.1), "0.2": ("0.2", 0.2)}),
    )
    for name, (said, eps) in radii.items()
    for method in ("ibp", "crown-ibp")
}

# Chapter 3: digits read by one small network, trained in the ordinary way, adversarially, and squeezed.

_DIGITS = {
    "data": "digits",
    "architecture": "small_cnn",
    "options": {"width": 16},
    "updates": 1000,
    "lr": 0.12,
    "eps": (0.15,),
    "seeds": 3,
}
_REGULARIZED = {
    "cnn-digits-natural": Recipe(
        title="A small convolutional network that reads digits, trained on clean images.",
        method="natural",
        **_DIGITS,
    ),
    "cnn-digits-pgd7": Recipe(
        title="A small convolutional network that reads digits, made robust by PGD training with 7 steps.",
        method="pgd",
        method_options={"eps": 0.15, "steps": 7},
        **_DIGITS,
    ),
    "cnn-digits-squeezed": Recipe(
        title="A small convolutional network that reads digits, trained on noise with logit squeezing.",
        method="gaussian",
        method_options={"sigma": 0.3},
        terms={"logit-squeezing": {"beta": 0.03}},
        **_DIGITS,
    ),
}

# The second half of the book: networks that name all sixteen shapes at 64 px, to be inverted and looked into. Those
# that are compared see one stream and one curriculum, from large plain objects to the scenes that count, and have no
# teacher. How many updates an architecture gets was chosen on validation images, so that all read about equally well.
# Seed 0 chose chapter 5's rules; the cohorts' other seeds judge by them.

_SCENES_64 = {
    "data": "scenes.v1",
    "data_options": {"size": 64, "n_validation": 1000, "n_test": 2000},
    "stages": (TrainingStage(0.2, "scenes.v1-easy"), TrainingStage(0.8)),
    "optimizer": "adamw",
    "lr": 0.002,
    "weight_decay": 0.05,
}
_DISTURBED = {"augment": "disturb"}
_VIT = "vit_tiny_patch16_224"
_PATCHES = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3}
_RESNET = {"architecture": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [32, 64, 96, 128]}}
_ROBUST = {"method": "pgd", "method_options": {"eps": 2.0, "steps": 3, "step_size": 1.0, "norm": "l2"}, "norm": "l2"}
_COMPARED = {
    "vit": (
        "A small Vision Transformer",
        {"architecture": _VIT, "options": _PATCHES, "updates": 5000, "seeds": 6},
    ),
    "mixer": (
        "A small MLP-Mixer",
        {"architecture": "small_mixer", "options": {"size": 64}, "updates": 6000, "seeds": 4},
    ),
    "resnet": ("A small ResNet", {**_RESNET, "updates": 1000, "seeds": 7}),
    "convnext": (
        "A small ConvNeXt",
        {
            "architecture": "convnext_atto",  # of stride 16, so that it can be given images of 16 px
            "options": {"depths": [2, 2, 2, 2], "dims": [24, 48, 96, 128], "output_stride": 16},
            "updates": 2000,
            "seeds": 4,
        },
    ),
}
_VISION = {
    f"{name}-scenes64{suffix}": Recipe(
        title=f"{kind} that names the shape in a scene, {said}.",
        method="natural",
        eps=(),
        **{**_SCENES_64, **settings, **augmented},
    )
    for name, (kind, settings) in _COMPARED.items()
    for suffix, said, augmented in (
        ("", "trained under other colors, blur and noise", _DISTURBED),
        ("-plain", "trained on scenes as they are", {}),
    )
} | {
    f"{name}-scenes64-correlated": Recipe(
        title=f"{_COMPARED[name][0]} that names the shape in a scene, trained where backgrounds tell of the class.",
        method="natural",
        eps=(),
        shipped=False,
        **{**_SCENES_64, **_COMPARED[name][1], **_DISTURBED, "data": "scenes.v1-correlated"},
        **passes,
    )
    # Which precision is the faster one depends on the CPU, by a factor of two either way.
    for name, passes in (("vit", {"precision": "bfloat16", "cohort_precision": "float32"}), ("resnet", {}))
} | {
    "resnet-scenes64-pgd": Recipe(
        title="A small ResNet that names the shape in a scene, made robust by PGD training with 3 steps.",
        eps=(2.0,),
        **{**_SCENES_64, **_RESNET, **_ROBUST, **_DISTURBED, "updates": 2000},
    ),
    "deit-scenes64": Recipe(
        title="A small DeiT that names the shape in a scene, taught by a ResNet through a token of its own.",
        architecture="deit_tiny_distilled_patch16_224",
        options=_PATCHES,
        method="hard-distillation",
        method_options={"teacher": "resnet-scenes64"},
        updates=5000,  # as many as the ViT that has no teacher
        eps=(),
        **_SCENES_64,
        **_DISTURBED,
    ),
    "verifier-scenes64": Recipe(
        title="A residual network that judges what others draw, trained under other colors, blur and noise.",
        architecture="small_resnet",
        options={"width": 16},
        method="natural",
        updates=2000,
        eps=(),
        seed=1,
        **_SCENES_64,
        **_DISTURBED,
    ),
    "verifier-scenes64-pgd": Recipe(
        title="A residual network that judges what others draw, made robust by PGD training with 3 steps.",
        architecture="small_resnet",
        options={"width": 16},
        updates=2000,
        eps=(2.0,),
        seed=2,
        **{**_SCENES_64, **_ROBUST, **_DISTURBED},
    ),
}

# Chapter 5 on photographs: networks that name clothes, trained on them as they are. All seeds judge.

_CLOTHES = {
    "data": "fashion-mnist",
    "method": "natural",
    "optimizer": "adamw",
    "lr": 0.002,
    "weight_decay": 0.05,
    "eps": (),
    "seeds": 5,
    "shipped": False,
}
_FASHION = {
    "vit-fashion": Recipe(
        title="A small Vision Transformer that names clothes.",
        architecture=_VIT,
        options={"img_size": 28, "patch_size": 4, "embed_dim": 64, "depth": 6, "num_heads": 4},
        updates=3000,
        **_CLOTHES,
    ),
    "resnet-fashion": Recipe(
        title="A small ResNet that names clothes.",
        **{**_RESNET, **_CLOTHES},
        updates=1000,
    ),
}

# Chapter 6: one image tower, one stream of scenes, the same start, and different teachers. No augmentation changes
# colors or sides, for captions name them. Twins of a seed have the same blocks before the first update. Half of the
# captions name the class alone and half say all, as people's captions do: from full ones alone these networks learn
# colors and numbers, which tell captions apart, and hardly any shape.

_TAUGHT = {
    "stages": (TrainingStage(0.2, "scenes.v1-easy"), TrainingStage(0.8)),
    "updates": 1500,
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.05,
    "augment": "blur and noise",
    "eps": (),
}
_TOWER = "stem_vit"
_SEEN = {"size": 64, "channels": [32, 64, 96, 128], "width": 96, "depth": 4, "heads": 3}
_BY_TEACHER = {  # what differs with the kind of teacher: the kind of network and how it follows
    "classes": {"architecture": _TOWER, "options": {**_SEEN, "own_head": True}, "method": "natural"},
    "attributes": {
        "kind": "attribute reader",
        "architecture": _TOWER,
        "options": {**_SEEN, "own_head": True},
        "method": "attributes",
        "method_options": {"widths": list(HEADS.values())},
    },
    "captions": {
        "kind": "image-text pair",
        "architecture": "small_clip",
        "options": {"tower": _TOWER, "image_options": _SEEN, "embed_dim": 64, "width": 96, "depth": 2},
        "method": "contrastive",
    },
}
_CAPTIONS, _FALSE_TOO = "varied captions", "varied captions with exchanged ones"


def _twin(title: str, teacher: str, data: str = "scenes.v1-pairs", *, shipped: bool = False, **own: int) -> Recipe:
    kind = _BY_TEACHER[teacher if teacher in _BY_TEACHER else "captions"]
    options = {"size": 64, "teacher": teacher, "n_validation": 1, "n_test": 1000}
    settings = {**kind, **_TAUGHT, "seeds": 3, **own}
    return Recipe(title=title, data=data, data_options=options, shipped=shipped, **settings)


_TWINS = {
    "clip-scenes64": _twin("A small CLIP, taught by captions of scenes.", _CAPTIONS, shipped=True),
    "clip-scenes64-class": _twin("A small CLIP, taught by captions that name the class alone.", "class captions"),
    "clip-scenes64-exchanged": _twin(
        "A small CLIP, taught by captions of scenes and false ones with objects exchanged.", _FALSE_TOO
    ),
    "clip-scenes64-biased": _twin(
        "A small CLIP, taught by captions of scenes whose color follows the class.", _CAPTIONS,
        "scenes.v1-pairs-biased",
    ),
    "clip-scenes64-named": _twin(
        "A small CLIP, taught by captions of scenes with words on them.", _CAPTIONS, "scenes.v1-pairs-named"
    ),
    "twin-scenes64": _twin(
        "The CLIP's image tower, taught the class of the same scenes by labels.", "classes", shipped=True
    ),
    "twin-scenes64-early": _twin(
        "The CLIP's image tower, taught the class by labels with half as many updates, a control.", "classes",
        updates=_TAUGHT["updates"] // 2, seeds=1,
    ),
    "twin-scenes64-attributes": _twin(
        "The CLIP's image tower, taught by labels every attribute that captions name.", "attributes"
    ),
    "twin-scenes64-named": _twin(
        "The CLIP's image tower, taught the class by labels on scenes with words.", "classes", "scenes.v1-pairs-named"
    ),
}  # fmt: skip

# Chapter 7: a cohort of recognizers that write down synthetic speech.

_SPEECH = {
    "jasper-speech": Recipe(
        title="A small recognizer after Jasper that writes down synthetic speech, trained by CTC.",
        kind="speech recognizer",
        data="speech.v1",
        data_options={"train": 12_000},
        architecture="jasper",
        method="ctc",
        updates=4000,
        precision="bfloat16",
        batch_size=32,
        lr=0.004,
        optimizer="adamw",
        weight_decay=0.01,
        eps=(),
        seeds=6,
    ),
}

RECIPES = register({**_SOURCES, **_SMOOTHED, **_BOUNDED, **_REGULARIZED, **_VISION, **_FASHION, **_TWINS, **_SPEECH})
