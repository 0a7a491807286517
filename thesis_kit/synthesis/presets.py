"""Common questions in one call: what excites a channel, and what a layer makes of an image.

Each is a setting of ``synthesize``, after lucid (Olah, Mordvintsev and Schubert, Distill 2017) and DeepDream
(Mordvintsev, Olah and Tyka, 2015), and takes its other arguments too.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.checks import check_images, choose
from thesis_kit.synthesis.augmentations import Affine, Jitter
from thesis_kit.synthesis.engine import Synthesis, synthesize
from thesis_kit.synthesis.objectives import channel, layer, maximize, neuron
from thesis_kit.synthesis.parametrizations import Fourier
from thesis_kit.synthesis.plan import Adam, Stage

WHATS = {"channel": channel, "neuron": neuron}


def visualize(
    model: nn.Module, layer: str, channels: Sequence[int], *, size: int = 128, steps: int = 512, lr: float = 0.05,
    what: str = "channel", channels_last: bool = False, **knobs: object,
) -> Synthesis:  # fmt: skip
    """Images that excite channels of a layer most, one a channel: feature visualization.

    Args:
        model: pixels in [0, 1] to anything; taken in evaluation mode and left as found.
        layer: a name of ``named_modules()``; before a ReLU the gradient does not vanish where a channel is off.
        channels: which ones; a channel may come several times and gives another image each time.
        size: side of the images, an even number. steps, lr: of Adam.
        what: "channel", its mean over all positions, or "neuron", the channel at the middle position.
        channels_last: as in ``synthesis.channel``.
        knobs: other arguments of ``synthesize``, such as ``seed``, ``checkpoint``, ``augmentations`` and ``channels``
            under the name ``in_channels``.

    Returns:
        A ``Synthesis``, whose ``losses`` are minus what was excited.

    Raises:
        ValueError, TypeError: as ``synthesize``. UnknownName: the layer does not exist.

    Source: Olah et al. 2017, and lucid's defaults: frequencies and decorrelated colors, Adam at a constant 0.05, 512
        steps, rolls of 8 and 4 pixels at 128, turns to 10° and scales of 0.9 to 1.1. Unlike there, edges are rolled
        around, where lucid pads the image with gray and crops it.

    Examples:
        >>> resnet = tk.zoo.load("resnet-scenes-a-natural")
        >>> tk.synthesis.visualize(resnet, "network.4", [0, 1], size=32, steps=2).images.shape
        torch.Size([2, 3, 32, 32])
    """
    asked = maximize(choose(what, WHATS, "what to visualize")(layer, channels, channels_last=channels_last))
    return synthesize(model, asked, **{"stages": Stage(size, steps), **_as_lucid(size, lr), **_named(knobs)})


def dream(
    model: nn.Module, name: str, images: Float[Tensor, "n c h w"], *, steps: int = 50, lr: float = 0.02, **knobs: object
) -> Synthesis:
    """Images changed so that a layer gives more of all that it gives already: DeepDream.

    Args:
        model: as for ``visualize``.
        name: of the layer.
        images: (n, c, h, w) in [0, 1], to begin with.
        steps, lr: of Adam; more of both goes further away from the images.
        knobs: other arguments of ``synthesize``.

    Returns:
        A ``Synthesis`` with an image for each, of the same size.

    Raises:
        ValueError, TypeError: as ``synthesize``, and for images that are none. UnknownName: the layer does not exist.

    Source: Mordvintsev, Olah and Tyka, "Inceptionism", 2015: the mean square of a layer is made large, under rolls.
        Ours are Adam on pixels and a single size, where they go up through octaves.

    Examples:
        >>> tk.synthesis.dream(model, "network.4", digits.x, steps=2).images.shape
        torch.Size([4, 1, 8, 8])
    """
    check_images(images)
    size, stage = min(images.shape[-2:]), Stage(tuple(images.shape[-2:]), steps)
    settings = {"augmentations": Jitter.for_size(size), "optimizer": Adam(lr), "channels": images.shape[1]}
    return synthesize(model, maximize(layer(name)), stages=stage, start=images, **{**settings, **knobs})


def _as_lucid(size: int, lr: float) -> dict[str, object]:
    seen = [Jitter(round(8 * size / 128)), Affine(10.0, (0.9, 1.1)), Jitter(round(4 * size / 128))]
    return {"parametrization": Fourier(), "augmentations": seen, "optimizer": Adam(lr, (0.9, 0.999), "constant")}


def _named(knobs: dict[str, object]) -> dict[str, object]:
    """``synthesize`` calls the images' channels what is here the layer's."""
    return {"channels" if key == "in_channels" else key: value for key, value in knobs.items()}
