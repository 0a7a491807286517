"""Classifiers by name: the book's own networks and any image classifier timm knows."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

from thesis_kit.checks import UnknownName, check_count, choose
from thesis_kit.extras import needs
from thesis_kit.models.anatomy import replace_head
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.mixer import small_mixer
from thesis_kit.models.pretrained import WeightsUnavailable, create
from thesis_kit.models.residual import preact_resnet18, small_resnet, wrn_32_10
from thesis_kit.models.small import small_cnn, strided_cnn
from thesis_kit.models.stem_vit import stem_vit
from thesis_kit.randomness import mix_seed

__all__ = ["BUILDERS", "WeightsUnavailable", "build", "timm_name"]

BUILDERS = {
    "small_cnn": small_cnn,
    "strided_cnn": strided_cnn,
    "small_mixer": small_mixer,
    "stem_vit": stem_vit,
    "small_resnet": small_resnet,
    "preact_resnet18": preact_resnet18,
    "wrn_32_10": wrn_32_10,
}


_HEAD = 61  # the stream of a seed that a head of its own is drawn from
_OURS = {"num_classes": "n_classes", "in_chans": "in_channels"}  # timm's words for two of our arguments
_WITHOUT_CLASSES = {384, 512, 640, 768, 1024, 1152, 1280}  # widths of timm's image towers, which end in embeddings


def build(
    name: str, *, n_classes: int | None = None, in_channels: int | None = None, pretrained: bool = False,
    seed: int | None = None, own_head: bool = False, **options: object,
) -> Classifier:  # fmt: skip
    """Return a classifier from pixels in [0, 1] to logits, by the name of its architecture.

    Args:
        name: "small_cnn", "strided_cnn", "small_mixer", "stem_vit", "small_resnet", "preact_resnet18", "wrn_32_10", any
            timm model name ("vit_base_patch16_224", with or without the tag of its weights), or "hf-hub:owner/model".
        n_classes: number of logits; None takes the architecture's own (10 here, 1000 for most of timm). timm's models
            without classes of their own, such as "vit_small_patch14_dinov2", need it, and get a head that is untrained.
        in_channels: channels of an image; None takes the architecture's own.
        pretrained: load timm's weights (needs a network connection the first time).
        seed: seed of the initial weights; the caller's random state is left as it was. None uses that state.
        own_head: draw the head apart from the rest, so that networks of one seed share all other weights however many
            logits they have.
        options: passed on to the architecture, such as ``width``; timm's own where it is timm's, such as ``img_size``
            and ``embed_dim``.

    Returns:
        A ``Classifier`` with the normalization and input size of a timm model as its first layers.

    Raises:
        UnknownName: the name or its tag is unknown; near names, or the tags that there are, are offered.
        ValueError: the model would have no classes, or options contradict one another.
        WeightsUnavailable: weights are neither on disk nor can they be downloaded.

    Examples:
        >>> network = tk.build("small_cnn", n_classes=5, in_channels=1, seed=0)
        >>> network(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 5])
    """
    if own_head and n_classes is not None:
        return _with_own_head(name, n_classes, seed, in_channels=in_channels, pretrained=pretrained, **options)
    given, options = _arguments({"n_classes": n_classes, "in_channels": in_channels}, options)
    check_count(given.get("n_classes", 2), what="n_classes", least=2)
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name in BUILDERS:
            if pretrained:
                raise ValueError(f"{name} has no pretrained weights: train it, or name a timm model")
            network = BUILDERS[name](**given, **options)
            return network if isinstance(network, Classifier) else Classifier(network)
        return _timm_classifier(timm_name(name), pretrained, options, **given)


def _with_own_head(name: str, n_classes: int, seed: int | None, **options: object) -> Classifier:
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    return replace_head(build(name, n_classes=2, seed=seed, **options), n_classes, seed=mix_seed(seed, _HEAD))


def _arguments(given: dict, options: dict) -> tuple[dict, dict]:
    """The arguments that were given, under their own names or timm's, and the other options."""
    given, options = {key: value for key, value in given.items() if value is not None}, dict(options)
    for word, own in _OURS.items():
        value = options.pop(word, None)
        if value is not None and given.setdefault(own, value) != value:
            raise ValueError(f"{own}={given[own]} and {word}={value} contradict one another: give {own} alone")
    if options.pop("features_only", False):
        raise ValueError(
            "features_only gives maps and no logits: build the classifier and read its layers with "
            "synthesis.activations(model, layers, x)"
        )
    return given, options


def timm_name(name: str, others: Iterable[str] = ()) -> str:
    """A name that timm builds by, of its own or of a hub; ``others`` are offered where there is none.

    Raises:
        UnknownName: timm has no such model, or no such tag of it.
    """
    timm = needs("timm")  # half a second, and only needed here

    name = re.sub(r"^(hf[-_]hub:)?timm/", "", name)
    if re.match(r"(hf[-_]hub|local-dir):.", name):
        return name
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        if "/" in name:
            raise UnknownName(f"unknown model {name!r}: a model of the Hugging Face Hub is called hf-hub:{name}")
        choose(name, [*others, *BUILDERS, *timm.list_models()], "model")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        has = f"it has {', '.join(tags)}" if tags else "it has none, leave it out"
        raise UnknownName(f"unknown tag {tag!r} of {architecture}: {has}") from error
    return name


def _timm_classifier(
    name: str, pretrained: bool, options: dict, n_classes: int | None = None, in_channels: int = 3
) -> Classifier:
    timm = needs("timm")

    if n_classes is None:
        _check_own_classes(name)
    else:
        options = {**options, "num_classes": n_classes}
    network = create(name, pretrained=pretrained, in_chans=in_channels, **options)
    expected = timm.data.resolve_model_data_config(network)
    mean, std = _for_channels(expected["mean"], expected["std"], in_channels)
    fixed = network.pretrained_cfg.get("fixed_input_size", False) or "img_size" in options
    size = options.get("img_size", tuple(expected["input_size"][-2:]))
    return Classifier(network, mean=mean, std=std, size=size if fixed else None)


def _check_own_classes(name: str) -> None:
    """Refuse a model whose outputs are features, or embeddings of a model of images and text."""
    timm = needs("timm")

    config = None if ":" in name else timm.get_pretrained_cfg(name)
    if config is None or config.num_classes not in _WITHOUT_CLASSES | {0}:
        return
    gives = f"embeddings of {config.num_classes} numbers" if config.num_classes else "features"
    raise ValueError(
        f"{name} has no classes of its own, for it gives {gives}: say n_classes, and it gets a head that is to be "
        "trained"
    )


def _for_channels(mean: tuple, std: tuple, channels: int) -> tuple[list[float], list[float]]:
    """timm states statistics for three channels; other counts get their average."""
    if channels == len(mean):
        return list(mean), list(std)
    return [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
