"""Image–text pairs by name: the book's small one, whose words are the scenes', and whatever open_clip knows."""

from __future__ import annotations

import logging
import os
import pickle
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from thesis_kit.checks import UnknownName, choose
from thesis_kit.connection import offline, reachable
from thesis_kit.data.scenes.lexicon import vocabulary as words_of_scenes
from thesis_kit.data.text import Vocabulary, check_length, check_text
from thesis_kit.extras import MissingPackage, missing, needs
from thesis_kit.models.build import build
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.clip import Clip, TextTower
from thesis_kit.models.pretrained import WeightsUnavailable

SMALL = "small_clip"
IMAGE_TOWER = "vit_tiny_patch16_224"
PATCHES = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 6, "num_heads": 3}  # the ViT of chapter 5
_HUB = "https://huggingface.co"
_PLACES = ("hf-hub:", "local-dir:")
_PRECISIONS = ("fp32", "pure_fp16", "pure_bf16")
_BROKEN = (  # what reading weights that are none, or another network's, ends in
    AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error,
)  # fmt: skip


def build_clip(
    name: str = SMALL, *, pretrained: str | os.PathLike | None = None, seed: int | None = None, **options: object
) -> Clip:
    """Return an image–text pair by name, in evaluation mode where it has published weights.

    Args:
        name: "small_clip", or a name of open_clip such as "ViT-B-32", "RN50" or "hf-hub:owner/model".
        pretrained: tag of open_clip's weights, such as "openai" (which needs a network connection the first time; its
            activation, QuickGELU, is chosen with it), or a file's path. None draws weights. A bias of similarities, as
            SigLIP's, is the same for all pairs and is left out.
        seed: of the drawn weights; the caller's random state is left as it was. None uses that state.
        options: of ``small_clip``, or of ``open_clip.create_model``, such as ``force_quick_gelu``.

    Raises:
        UnknownName: the name or the tag is unknown; near names, or the tags that there are, are offered.
        WeightsUnavailable: weights, or a hub's tokenizer, are neither on disk nor can they be downloaded.
        MissingPackage: open_clip is not installed and the name is one of its; or transformers, where it tokenizes.
        ValueError: a file that holds no weights, or those of another network; a mixed precision.

    Examples:
        >>> clip = tk.models.build_clip("small_clip", seed=0)
        >>> type(clip).__name__
        'Clip'
    """
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name == SMALL:
            if pretrained is not None:
                raise ValueError(f"{SMALL} has no published weights: leave out pretrained, or take one from the zoo")
            return small_clip(**{"seed": seed, **options})
        return _open_clip(name, None if pretrained is None else os.fspath(pretrained), options)


def small_clip(
    *, image: nn.Module | None = None, tower: str = IMAGE_TOWER, image_options: dict | None = None, embed_dim: int = 64,
    width: int = 96, depth: int = 2, heads: int = 3, vocabulary: Vocabulary | None = None, seed: int | None = None,
) -> Clip:  # fmt: skip
    """The book's small pair: a network for images of 64 × 64 and a text tower over words.

    Args:
        image: image tower of one's own, pixels in [0, 1] to features (n, embed_dim). Unless given, it is made:
        tower: by this name, as ``build`` has it; a ViT unless given.
        image_options: options of its architecture, in its own words ("img_size", "depth", …). A ViT has chapter 5's
            where they say nothing else.
        embed_dim: numbers of a feature. width, depth, heads: of the text tower.
        vocabulary: the text tower's words; the scenes' own unless given.
        seed: of the image tower, which a classifier built with ``own_head`` shares but for the head.
    """
    if image is None:
        own = {**(PATCHES if tower == IMAGE_TOWER else {}), **(image_options or {})}
        image = build(tower, n_classes=embed_dim, seed=seed, own_head=True, **own)
    words = words_of_scenes() if vocabulary is None else vocabulary
    text = TextTower(words.size, words.context, width=width, depth=depth, heads=heads, embed_dim=embed_dim)
    return Clip(image, text, words)


def _open_clip(name: str, pretrained: str | None, options: dict) -> Clip:
    library, hub = needs("open_clip"), ":" in name
    if not hub:
        _check_names(library, name, pretrained)
    elif not name.startswith(_PLACES):
        raise UnknownName(f"unknown place of a model in {name!r}: it is one of {', '.join(_PLACES)}")
    if str(options.get("precision", "fp32")) not in _PRECISIONS:
        raise ValueError(
            f"precision={options['precision']!r} mixes precisions, which images then do not fit: build it in fp32 and "
            "convert the whole pair, as by clip.half()"
        )
    folder = Path(name.removeprefix("local-dir:")) if name.startswith("local-dir:") else None
    if folder is not None and not folder.is_dir():
        raise WeightsUnavailable(f"there is no folder {folder}: name one that holds a model of open_clip")
    file = Path(pretrained) if pretrained and not hub and not library.get_pretrained_cfg(name, pretrained) else None
    if file is not None and not file.is_file():
        raise WeightsUnavailable(f"there is no file {file}: name one that holds weights of {name}, or a tag of its")
    online = (pretrained is None and not hub) or file is not None or folder is not None or reachable(_HUB)
    config = library.get_pretrained_cfg(name, pretrained) if pretrained and not hub else None
    quick = {"force_quick_gelu": True} if config and config.get("quick_gelu") else {}
    try:
        with _quiet(), nullcontext() if online else offline():
            network = library.create_model(name, pretrained=pretrained, **{**quick, **options})
            tokenizer = library.get_tokenizer(name)
    except ModuleNotFoundError as error:
        raise MissingPackage(missing((error.name or "transformers").partition(".")[0])) from error
    except Exception as error:
        said = " ".join(str(error).split()).rstrip(".")
        if file is not None and isinstance(error, _BROKEN):
            raise ValueError(f"{file} holds no weights of {name}: {said[:300]}") from error
        if not (isinstance(error, OSError) or (not online and isinstance(error, RuntimeError | ValueError))):
            raise
        why = "huggingface.co does not answer" if not online else said
        drawn = ", or leave out pretrained" if pretrained else ""
        raise WeightsUnavailable(f"{name} could not be loaded ({why}): connect to the network once{drawn}") from error
    for tower in (network.visual, getattr(network, "text", None)):
        if getattr(tower, "output_tokens", False):  # CoCa's, which give their tokens too
            tower.output_tokens = False
    scale = network.logit_scale.detach().exp().item()
    pair = Clip(_image_tower(network), _text_tower(network), _Pieces(tokenizer, network.context_length), scale=scale)
    return pair.eval() if pretrained or hub else pair


def _check_names(library: object, name: str, pretrained: str | None) -> None:
    choose(name, [SMALL, *library.list_models()], "image–text model")
    tags = library.list_pretrained_tags_by_model(name)
    if pretrained is None or library.get_pretrained_cfg(name, pretrained) or "." in pretrained or "/" in pretrained:
        return
    has = f"it has {', '.join(tags)}" if tags else "it has none, leave it out"
    raise UnknownName(f"unknown tag {pretrained!r} of {name}: {has}")


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip says on the root logger that weights are drawn, which was asked for, or what is raised anyway."""
    root, before = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(before)


def _image_tower(network: nn.Module) -> Classifier:
    """Pixels in [0, 1] to features, with open_clip's normalization and size first."""
    visual = network.visual
    size = visual.image_size if isinstance(visual.image_size, int) else tuple(visual.image_size)
    return Classifier(visual, mean=visual.image_mean, std=visual.image_std, size=size)


def _text_tower(network: nn.Module) -> nn.Module:
    """The text tower alone: a module of its own in some of open_clip's models, a part of the whole in others."""
    if hasattr(network, "text"):
        return network.text
    return _InlineText(network)


class _InlineText(nn.Module):
    """The text tower of a model that holds its layers among its own."""

    def __init__(self, network: nn.Module):
        super().__init__()
        network.visual, network.logit_scale = None, None  # they are the pair's
        self.network = network

    def forward(self, tokens: Int[Tensor, "n t"]) -> Tensor:
        return self.network.encode_text(tokens)


class _Pieces:
    """open_clip's tokenizer, which cuts long sentences short; here they are refused."""

    def __init__(self, tokenizer: object, context: int):
        self._tokenizer, self.context = tokenizer, context

    def __call__(self, sentences: Sequence[str]) -> Int[Tensor, "n t"]:
        for sentence in sentences:
            check_text(sentence)
        rows = self._tokenizer(list(sentences), context_length=4 * self.context)
        inner = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        padding, marks = getattr(inner, "pad_token_id", 0) or 0, _marks(inner)
        for sentence, row in zip(sentences, rows.tolist(), strict=True):
            length = max((place for place, token in enumerate(row, start=1) if token != padding), default=0)
            length += padding in marks and length < len(row)  # the end mark looks like what fills up
            check_length(sentence, length, self.context)
            if marks & set(row[1 : length - 1]):
                raise ValueError(f"{sentence!r} holds a mark of a sentence's beginning or end: leave it out")
        return rows[:, : self.context]


def _marks(tokenizer: object) -> set[int]:
    """Tokens that stand at a sentence's beginning or end alone, under open_clip's names and Hugging Face's."""
    names = ("sot_token_id", "eot_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    return {token for token in (getattr(tokenizer, name, None) for name in names) if token is not None}
