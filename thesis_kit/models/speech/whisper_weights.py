"""Whisper's weights from the forms they come in: OpenAI's ``.pt``, Hugging Face's safetensors, CTranslate2's binary.

Each form has names of its own for the same arrays; here they are put into ours, and the sizes are told by the arrays.
Nothing in a file is ever run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from thesis_kit.files import DamagedFile
from thesis_kit.models.speech.ctranslate2 import parse_ctranslate2
from thesis_kit.models.speech.whisper import Whisper, WhisperSize

Names = Sequence[tuple[str, str]]

_OPENAI: Names = (
    (r"^encoder\.positional_embedding$", "positions"), (r"^decoder\.positional_embedding$", "decoder.positions"),
    (r"^decoder\.token_embedding\.", "decoder.embedding."), (r"^encoder\.ln_post\.", "norm."),
    (r"^decoder\.ln\.", "decoder.norm."), (r"\.cross_attn_ln\.", ".norm_cross."), (r"\.cross_attn\.", ".cross."),
    (r"\.attn_ln\.", ".norm1."), (r"\.mlp_ln\.", ".norm2."), (r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.2\.", ".mlp.fc2."),
    (r"\.query\.", ".q."), (r"\.key\.", ".k."), (r"\.value\.", ".v."), (r"^encoder\.", ""),
)  # fmt: skip
_HUGGING_FACE: Names = (
    (r"^model\.", ""), (r"\.embed_positions\.weight$", ".positions"), (r"\.embed_tokens\.", ".embedding."),
    (r"^(encoder|decoder)\.layer_norm\.", r"\1.norm."), (r"\.layers\.", ".blocks."),
    (r"\.encoder_attn_layer_norm\.", ".norm_cross."), (r"\.encoder_attn\.", ".cross."),
    (r"\.self_attn_layer_norm\.", ".norm1."), (r"\.self_attn\.", ".attn."), (r"\.final_layer_norm\.", ".norm2."),
    (r"\.fc([12])\.", r".mlp.fc\1."), (r"\.([qkv])_proj\.", r".\1."), (r"\.out_proj\.", ".out."), (r"^encoder\.", ""),
)  # fmt: skip
_CTRANSLATE2: Names = (
    (r"/", "."), (r"\.position_encodings\.encodings$", ".positions"), (r"^decoder\.embeddings\.", "decoder.embedding."),
    (r"\.layer_(\d+)\.", r".blocks.\1."), (r"\.self_attention\.layer_norm\.", ".norm1."),
    (r"\.attention\.layer_norm\.", ".norm_cross."), (r"\.ffn\.layer_norm\.", ".norm2."),
    (r"^(encoder|decoder)\.layer_norm\.", r"\1.norm."), (r"\.self_attention\.", ".attn."),
    (r"\.attention\.", ".cross."), (r"\.ffn\.linear_0\.", ".mlp.fc1."), (r"\.ffn\.linear_1\.", ".mlp.fc2."),
    (r"\.gamma$", ".weight"), (r"\.beta$", ".bias"), (r"^encoder\.", ""),
)  # fmt: skip
_STACKED = {"attn.linear_0": "qkv", "attn.linear_1": ("out",), "cross.linear_0": "q", "cross.linear_1": "kv",
            "cross.linear_2": ("out",)}  # fmt: skip


def whisper_from_file(path: str | os.PathLike, *, seconds: float | None = None) -> Whisper:
    """A Whisper with the weights of a file or folder, in evaluation mode.

    Args:
        path: OpenAI's ``.pt``; ``model.safetensors`` of Hugging Face; ``model.bin`` of CTranslate2; or the folder that
            holds one of the last two.
        seconds: as for ``Whisper``.

    Raises:
        FileNotFoundError: there is nothing of that name. DamagedFile: it holds no Whisper, or is not whole.

    Examples:
        >>> from thesis_kit.models.speech import whisper_from_file  # doctest: +SKIP
        >>> whisper = whisper_from_file("whisper-tiny.en/", seconds=3.0)  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        held = [path / name for name in ("model.safetensors", "model.bin") if (path / name).is_file()]
        if not held:
            raise FileNotFoundError(f"{path} holds neither model.safetensors nor model.bin: name the file of weights")
        path = held[0]
    return whisper_from(_state(path), seconds=seconds, what=str(path))


def _state(path: Path) -> dict[str, Tensor]:
    """The weights of a file under our names."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        try:
            return _renamed(load_file(path), _HUGGING_FACE)
        except SafetensorError as error:
            raise DamagedFile(f"{path} is no file of safetensors, or not a whole one ({error})") from error
    if path.suffix == ".pt":
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
            return _renamed(held["model_state_dict"], _OPENAI)
        except (RuntimeError, KeyError, TypeError, EOFError, ImportError, ValueError) as error:
            raise DamagedFile(f"{path} does not hold Whisper's weights as OpenAI publishes them ({error})") from error
        except Exception as error:  # pickle's own, whose advice is to run what is in the file
            raise DamagedFile(f"{path} holds other things than weights: take it from its publisher again") from error
    return state_of_ctranslate2(path.read_bytes(), str(path))


def state_of_ctranslate2(data: bytes, what: str) -> dict[str, Tensor]:
    """A Whisper's weights under our names, from the bytes of CTranslate2's file, which an error calls ``what``."""
    specification, variables = parse_ctranslate2(data, what)
    if specification != "WhisperSpec":
        raise DamagedFile(f"{what} is a model of CTranslate2 of the kind {specification}, and not a WhisperSpec")
    return _unstacked(_renamed(variables, _CTRANSLATE2))


def _renamed(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for pattern, ours in names:
            name = re.sub(pattern, ours, name)
        found[name] = value
    return found


def _unstacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v apart, which CTranslate2 stacks; a key has no bias."""
    found = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        stacked = next((of for of in _STACKED if stem.endswith(of)), None)
        if stacked is None:
            found[name] = value
            continue
        parts, around = _STACKED[stacked], stem[: -len(stacked)] + stacked.partition(".")[0]
        for part, one in zip(parts, value.chunk(len(parts)), strict=True):
            if (part, kind) != ("k", "bias"):
                found[f"{around}.{part}.{kind}"] = one
    return found


def whisper_from(state: Mapping[str, Tensor], *, seconds: float | None = None, what: str = "the weights") -> Whisper:
    """A Whisper of these weights under our names, of the sizes that they have.

    Raises:
        DamagedFile: some are missing, or do not fit.
    """
    try:
        bands, places = state["conv1.weight"].shape[1], state["positions"].shape[0]
        vocabulary, width = state["decoder.embedding.weight"].shape
        depths = [1 + max(int(found[1]) for name in state if (found := re.match(rf"{of}blocks\.(\d+)\.", name)))
                  for of in ("", r"decoder\.")]  # fmt: skip
        size = WhisperSize(width, *depths, vocabulary, bands, places, state["decoder.positions"].shape[0])
        with torch.random.fork_rng():
            model = Whisper(size, seconds=seconds)
        known = model.state_dict()
        model.load_state_dict({name: state[name].float() for name in known})
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{what} do not make a Whisper ({error}): look at where they come from") from error
    return model.eval()
