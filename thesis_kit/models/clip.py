"""Image–text pairs: an image tower and a text tower into one space, in which a picture lies near its caption.

After Radford et al. 2021 (CLIP). A ``Clip`` takes pixels in [0, 1] as every model of the package does, and sentences as
they are written; what cannot be encoded as a whole is refused. ``build_clip`` makes one by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import as_module, ask, device_of
from thesis_kit.checks import NonFiniteOutput, check_images, check_same_device
from thesis_kit.models.seen import inside

TEMPERATURE = 0.07  # at first, as in the paper
Tokenizer = Callable[[Sequence[str]], Tensor]
Pair = nn.Module  # a ``Clip``, or one in a ``DataParallel`` or compiled


class Clip(nn.Module):
    """Two towers, a tokenizer and a scale.

    Called with images (n, c, h, w) and token ids (n, t) it returns image features (n, d) and text features (m, d), both
    of length 1, and the scale of their similarities, as ``training.Contrastive`` and open_clip have it.

    Args:
        image: pixels in [0, 1] to features (n, d).
        text: token ids (n, t) int64 to features (n, d); may lie on another device.
        tokenizer: sentences to token ids; refuses what it cannot hold whole.
        scale: of similarities at first; its logarithm is the parameter ``logit_scale``.
    """

    def __init__(self, image: nn.Module, text: nn.Module, tokenizer: Tokenizer, *, scale: float = 1 / TEMPERATURE):
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number, got {scale}")
        self.image, self.text, self.tokenizer = as_module(image), text, tokenizer
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(
        self, images: Float[Tensor, "n c h w"], tokens: Int[Tensor, "m t"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"], Float[Tensor, ""]]:
        """Image features, text features and the scale, on the device of the images."""
        seen = _unit(ask(self.image, images), "image", len(images))
        said = self.encode_tokens(tokens)
        check_one_space(seen, said)
        return seen, said, self.scale.to(seen.device)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied by; ``training.Contrastive`` keeps it at 100 or less, as in the paper."""
        return self.logit_scale.exp()

    def encode_image(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of length 1 of images in [0, 1], with gradients, in the mode the model is in.

        Raises:
            ValueError, TypeError: images that are none, or lie on another device than the image tower.
        """
        check_images(x), check_same_device(self.image, x)
        return _unit(ask(self.image, x), "image", len(x))

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Features of length 1 of sentences, on the device of the image tower.

        Raises:
            ValueError: no sentence, an empty one, or one longer than the context.
            UnknownName: a word that the model's own vocabulary does not have.
            TypeError: a single text in place of a list.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list of sentences, got one text: write [{texts!r}]")
        if not len(texts):
            raise ValueError("there is no sentence to encode: give at least one")
        return self.encode_tokens(self.tokenizer(list(texts)))

    def encode_tokens(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Features of length 1 of sentences that are tokens already, on the device of the image tower.

        Raises:
            ValueError: a number that the text tower has no token for.
        """
        check_tokens(self.text, tokens)
        said = _unit(self.text(tokens.to(device_of(self.text) or tokens.device)), "text", len(tokens))
        return said.to(device_of(self.image) or said.device)

    def similarity(self, x: Float[Tensor, "n c h w"], texts: Sequence[str]) -> Float[Tensor, "n m"]:
        """Cosines of images and sentences, without the scale, in the precision of the images' features."""
        seen, said = self.encode_image(x), self.encode_text(texts)
        check_one_space(seen, said)
        return seen @ said.to(seen).T


def as_pair(model: object) -> Clip:
    """The pair itself, or that in a ``DataParallel`` or a compiled one.

    Raises:
        TypeError: it is none; says how to make one.
    """
    part = model
    while isinstance(part, nn.Module) and not isinstance(part, Clip):
        part = inside(part)
    if not isinstance(part, Clip):
        raise TypeError(
            f"an image–text pair must be a Clip, got {type(model).__name__}: build_clip(name, pretrained=tag) makes "
            "one of open_clip's, and Clip(image, text, tokenizer) one of two towers"
        )
    return part


def check_tokens(text: nn.Module, tokens: Int[Tensor, "n t"]) -> None:
    """Require numbers that a text tower, or the pair it is a part of, has tokens for: those of its own tokenizer."""
    known = max((part.num_embeddings for part in text.modules() if isinstance(part, nn.Embedding)), default=None)
    if known is None or not tokens.numel():
        return
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= known:
        raise ValueError(
            f"token ids reach from {low} to {high}, and the text tower knows 0 to {known - 1}: make them with its own "
            "tokenizer"
        )


def check_one_space(images: Tensor, texts: Tensor) -> None:
    """Require as many numbers an image as a text."""
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"the towers must end in one space, got {images.shape[1]} numbers an image and {texts.shape[1]} a text"
        )


def _unit(features: object, what: str, n: int) -> Tensor:
    """Features brought to length 1."""
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != n:
        seen = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"the {what} tower must return features (n, d) for n = {n}, got {seen}")
    if not torch.isfinite(features).all():
        raise NonFiniteOutput(f"the {what} tower returned NaN or infinite features")
    return F.normalize(features, dim=1)


class TextTower(nn.Module):
    """A small Transformer over words, read at the sentence's end: CLIP's text tower with few layers.

    Each token sees those before it, so what pads a sentence behind its end mark does not matter. Layers normalize
    first and use GELU.

    Args:
        size: number of tokens; the largest marks a sentence's end. context: most tokens of a sentence.
        width, depth, heads: of the Transformer. embed_dim: numbers of a feature.
    """

    def __init__(self, size: int, context: int, *, width: int = 96, depth: int = 2, heads: int = 3,
                 embed_dim: int = 64):  # fmt: skip
        super().__init__()
        self.words, self.places = nn.Embedding(size, width), nn.Parameter(torch.empty(context, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.projection = nn.LayerNorm(width), nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.words.weight, std=0.02), nn.init.normal_(self.places, std=0.01)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Features (n, d) of token ids (n, t)."""
        n, length = tokens.shape
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)  # what a token may not see
        x = self.blocks(self.words(tokens) + self.places[:length], mask=later)  # (n, t, width)
        ends = tokens.argmax(dim=1)
        return self.projection(self.norm(x[torch.arange(n, device=x.device), ends]))
