"""What layers give when a classifier is shown images: ``recording`` for images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import Model, as_module, evaluating, plain
from thesis_kit.checks import check_count, check_images, check_same_device
from thesis_kit.recording.watching import Watcher


def activations(
    model: Model, layers: str | Sequence[str], x: Float[Tensor, "n c h w"], *, batch_size: int = 256
) -> dict[str, Tensor]:
    """What some layers give when the model, in evaluation mode, is shown images: layer -> (n, …), on their device.

    Args:
        model: pixels in [0, 1] to anything; of a plain function there are only ``LOGITS``.
        layers: names as objectives take them: of ``named_modules()``, "input of" one of them, of ``recording.sites``,
            ``LOGITS``.
        x: images, on the model's device.
        batch_size: images a pass. All that is seen is kept, which is much for maps of many images.

    Raises:
        UnknownName: a layer does not exist; near names are offered.
        ValueError, TypeError: a layer is not reached or gives no tensor; images that are none.

    Examples:
        >>> seen = tk.synthesis.activations(model, "network.4", digits.x)
        >>> seen["network.4"].shape
        torch.Size([4, 32, 4, 4])
    """
    model = as_module(model)
    check_images(x), check_same_device(model, x), check_count(batch_size, what="batch_size")
    watcher = Watcher(model, [layers] if isinstance(layers, str) else layers)
    with evaluating(model), torch.no_grad(), watcher.watching():
        seen = [dict(watcher(some)) for some in plain(x).split(batch_size)]
        return {name: torch.cat([part[name] for part in seen]) for name in watcher.names}
