"""Zero-shot classification: an image–text pair and the names of some classes are an ordinary classifier.

After Radford et al. 2021, section 3.1. What comes out takes pixels in [0, 1] to logits, so attacks, certificates and
inversion work on it as on any other; the sentences are encoded once and held.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask, evaluating
from thesis_kit.data.scenes.captions import with_article
from thesis_kit.data.scenes.vocabulary import SHAPES
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.clip import Pair, as_pair, check_one_space

PLAIN = ("{}",)
SCENE_TEMPLATES = ("{}", "a picture of {}", "an image of {}", "this is {}", "there is {}", "we see {}")


def zero_shot(clip: Pair, classes: Sequence[str], templates: Sequence[str] = PLAIN) -> Classifier:
    """A classifier whose logits are the scaled cosines of an image with each class's sentences.

    Args:
        clip: an image–text pair; the classifier shares its image tower, and keeps what it said of the classes now.
        classes: at least two different names, in the words of the templates ("a star").
        templates: sentences with one "{}" for the name. Of several, a class has the mean of their features of length 1,
            brought to length 1 again: a prompt ensemble.

    Returns:
        A ``Classifier`` in the mode that the image tower is in.

    Raises:
        ValueError: fewer than two classes, one that comes twice or is the same to the text tower, an empty one, a
            template without its "{}" or with other braces, a sentence that the text tower cannot take. UnknownName: a
            word that it does not know. TypeError: no pair, or names that are no texts.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> classifier = tk.language.zero_shot(clip, ["star", "heart"], ["a {}"])
        >>> classifier(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 2])
    """
    clip = as_pair(clip)
    weights = class_features(clip, classes, templates)
    cosines = _Cosines(clip.image, weights, clip.scale.detach().to(weights.device))
    found = Classifier(cosines)
    found.training = cosines.training = clip.image.training  # the tower's own modules stay in the modes they are in
    return found


def class_features(clip: Pair, classes: Sequence[str], templates: Sequence[str] = PLAIN) -> Float[Tensor, "k d"]:
    """One feature of length 1 a class, the mean over templates; arguments and errors as of ``zero_shot``.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> tk.language.class_features(clip, ["star", "heart"], ["a {}"]).shape
        torch.Size([2, 64])
    """
    clip = as_pair(clip)
    _check(classes, templates)
    sentences = [template.replace("{}", name) for name in classes for template in templates]
    tokens = clip.tokenizer(sentences)
    _check_told_apart(classes, tokens.unflatten(0, (len(classes), len(templates))).flatten(1).tolist())
    with torch.no_grad(), evaluating(clip.text):
        said = clip.encode_tokens(tokens).unflatten(0, (len(classes), len(templates)))  # (k, templates, d)
    return F.normalize(said.mean(dim=1), dim=1)


def scene_classes(shapes: Sequence[str] = SHAPES) -> list[str]:
    """Shapes, or other names, with their article, as ``SCENE_TEMPLATES`` take them: "a star", "an arrow".

    Examples:
        >>> tk.language.scene_classes(("star", "arrow"))
        ['a star', 'an arrow']
    """
    _check_texts(shapes, "shapes")
    return [with_article(shape) for shape in shapes]


def _check_texts(names: Sequence[str], what: str) -> None:
    """Require a list of texts with something in each."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not len(names):
        raise ValueError(f"{what} must be a list of texts, got {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a list of texts, got {name!r} among them")
        if not name.strip():
            raise ValueError(f"{what} must be a list of texts with a word in each, got {name!r} among them")


def _check_told_apart(classes: Sequence[str], rows: list[list[int]]) -> None:
    """Require that no two classes are the same to the text tower."""
    first: dict[tuple[int, ...], str] = {}
    for name, row in zip(classes, rows, strict=True):
        other = first.setdefault(tuple(row), name)
        if other is not name:
            raise ValueError(f"the text tower reads {other!r} and {name!r} alike: leave one out, or tell them apart")


def _check(classes: Sequence[str], templates: Sequence[str]) -> None:
    _check_texts(classes, "classes"), _check_texts(templates, "templates")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(f"zero-shot classification needs at least two different classes, got {list(classes)[:8]}")
    for template in templates:
        if template.count("{}") != 1 or {"{", "}"} & set(template.replace("{}", "")):
            raise ValueError(
                f'a template has one "{{}}" where the class\'s name goes, and no other brace, got {template!r}'
            )


class _Cosines(nn.Module):
    """An image tower and the features of classes: pixels in [0, 1] to scaled cosines (n, k)."""

    def __init__(self, image: nn.Module, weights: Tensor, scale: Tensor):
        super().__init__()
        self.image = image
        self.register_buffer("weights", weights)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        features = F.normalize(ask(self.image, x), dim=1)
        check_one_space(features, self.weights)
        return self.scale * features @ self.weights.to(features).T
