"""Classifiers by name: the book's own networks and any image classifier timm knows."""

from __future__ import annotations

import torch

from thesis_kit.checks import UnknownName, check_count, choose
from thesis_kit.extras import needs
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.mixer import small_mixer
from thesis_kit.models.residual import preact_resnet18, small_resnet, wrn_32_10
from thesis_kit.models.small import small_cnn, strided_cnn

BUILDERS = {
    "small_cnn": small_cnn,
    "strided_cnn": strided_cnn,
    "small_mixer": small_mixer,
    "small_resnet": small_resnet,
    "preact_resnet18": preact_resnet18,
    "wrn_32_10": wrn_32_10,
}


def build(
    name: str, *, n_classes: int | None = None, in_channels: int | None = None, pretrained: bool = False,
    seed: int | None = None, **options: object,
) -> Classifier:  # fmt: skip
    """Return a classifier from pixels in [0, 1] to logits, by the name of its architecture.

    Args:
        name: "small_cnn", "strided_cnn", "small_mixer", "small_resnet", "preact_resnet18", "wrn_32_10", or any timm
            model name ("vit_base_patch16_224").
        n_classes: number of logits; None takes the architecture's own (10 here, 1000 for most of timm).
        in_channels: channels of an image; None takes the architecture's own.
        pretrained: load timm's weights (needs a network connection the first time).
        seed: seed of the initial weights; the caller's random state is left as it was. None uses that state.
        options: passed on to the architecture, such as ``width``; timm's own where it is timm's, such as ``img_size``
            and ``embed_dim``.

    Returns:
        A ``Classifier`` with the normalization and input size of a timm model as its first layers.

    Raises:
        UnknownName: the name is unknown; near names are offered.
    """
    check_count(2 if n_classes is None else n_classes, what="n_classes", least=2)
    given = {"n_classes": n_classes, "in_channels": in_channels}
    given = {key: value for key, value in given.items() if value is not None}
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name in BUILDERS:
            if pretrained:
                raise ValueError(f"{name} has no pretrained weights: train it, or name a timm model")
            network = BUILDERS[name](**given, **options)
            return network if isinstance(network, Classifier) else Classifier(network)
        return _timm_classifier(name, n_classes, in_channels, pretrained, options)


def _timm_classifier(
    name: str, n_classes: int | None, in_channels: int | None, pretrained: bool, options: dict
) -> Classifier:
    timm = needs("timm")  # half a second, and only needed here

    if not timm.is_model(name.split(".")[0]):
        choose(name, [*BUILDERS, *timm.list_models()], "model")
        raise UnknownName(f"unknown model {name!r}")
    if n_classes is not None:
        options = {**options, "num_classes": n_classes}
    network = timm.create_model(name, pretrained=pretrained, in_chans=in_channels or 3, **options)
    expected = timm.data.resolve_model_data_config(network)
    mean, std = _for_channels(expected["mean"], expected["std"], in_channels or 3)
    fixed = network.pretrained_cfg.get("fixed_input_size", False) or "img_size" in options
    size = options.get("img_size", tuple(expected["input_size"][-2:]))
    return Classifier(network, mean=mean, std=std, size=size if fixed else None)


def _for_channels(mean: tuple, std: tuple, channels: int) -> tuple[list[float], list[float]]:
    """timm states statistics for three channels; other counts get their average."""
    if channels == len(mean):
        return list(mean), list(std)
    return [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
