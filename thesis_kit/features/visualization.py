"""Images that excite units most: feature visualization by the paper's constants, its released code's, Fourier and MACO.

Ghiasi et al., "What do Vision Transformers Learn?" (2022, eq. 1 and 2), climb the activation of a unit over an image's
patches under jitter, ColorShift and noise, with a penalty on total variation. The constants of the paper's text and of
its code differ, and so both are here by name; "fourier" follows lucid (Olah et al., Distill 2017) and "maco" Fel et al.
(NeurIPS 2023). Ours throughout is that any site of any network may be asked, in equal settings.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from thesis_kit.asking import Model, as_module, borrowed, device_of
from thesis_kit.checks import check_count, check_eps, check_images, choose
from thesis_kit.features.units import Units, excitation
from thesis_kit.models.seen import inside
from thesis_kit.recording.watching import Watcher
from thesis_kit.synthesis import (
    Adam,
    Affine,
    ColorShift,
    Crop,
    Ensemble,
    Fourier,
    GaussianNoise,
    Jitter,
    Objective,
    Phases,
    Pixels,
    Stage,
    Synthesis,
    maximize,
    mean_spectrum,
    synthesize,
    total_variation,
)

METHODS = ("paper", "code", "fourier", "maco")
STEPS = {"paper": 400, "code": 400, "fourier": 512, "maco": 256}  # published
COPIES = {"paper": 8, "code": 8, "fourier": 1, "maco": 6}
_PENALIZED = ("paper", "code")
TV = 5e-4  # of the released code, for images of 224 pixels
_A_PASS = 64  # images


def visualize(
    model: Model,
    site: str,
    units: Units,
    *,
    method: str = "paper",
    size: int | None = None,
    steps: int | None = None,
    copies: int | None = None,
    tv: float | None = None,
    images: Float[Tensor, "n c h w"] | None = None,
    seed: int = 0,
    **knobs: Any,
) -> Synthesis:
    """Images that excite units of a site most, one a unit.

    All units go through the network together, each with random numbers of its own, and a pass ends at the site.

    Args:
        model: pixels in [0, 1] to anything; taken in evaluation mode and left as found.
        site: a name of ``recording.sites(model)``, such as "blocks.3.hidden", or of a layer.
        units: numbers of units, or directions (k, u) among them, as rows of a rotated basis.
        method: "paper" (noise of standard deviation 1 on every pixel, the sum over patches), "code" (the released
            code's: one number of noise a channel, from 0.5 to 0, the older ColorShift, the mean over patches divided
            by the copies), "fourier", or "maco", which wants ``images``.
        size: side of the images; the model's own where it says so.
        steps, copies: of every image; the method's published numbers unless given.
        tv: weight of total variation, at least 0, of "paper" and "code" alone; the released code's unless given.
        images: real images (n, c, size, size) in [0, 1], whose mean spectrum "maco" alone holds fixed.
        seed: of all random numbers.
        knobs: other arguments of ``synthesis.synthesize``, such as ``checkpoint``, ``batch`` and ``channels``; what the
            method sets, such as ``augmentations`` and ``optimizer``, may be given too.

    Returns:
        A ``Synthesis``; its ``losses`` (steps, k) are minus the activation, with the penalty.

    Raises:
        UnknownName: a site, layer or method does not exist; near names are offered.
        ValueError: units that the site does not have; a site that cannot be recorded; a size that cannot be told; what
            another method takes; units of which none has a gradient, so that their images would show nothing.

    Warns:
        UserWarning: some of the units have no gradient.

    Examples:
        >>> vit = tk.zoo.load("vit-scenes64")
        >>> made = tk.features.visualize(vit, "blocks.3.hidden", [0, 1], size=64, steps=1, copies=1)
        >>> made.images.shape
        torch.Size([2, 3, 64, 64])
    """
    choose(method, METHODS, "method of visualization")
    model = as_module(model)
    side = own_size(model) if size is None else size
    check_count(side, what="size", least=2), check_eps(0.0 if tv is None else tv, what="tv")
    if tv and method not in _PENALIZED:
        raise ValueError(f"{method} has no total variation: leave tv out, or take a method of {', '.join(_PENALIZED)}")
    if images is not None and method != "maco":
        raise ValueError(f"{method} takes no images: leave them out, or take the method maco")
    steps = STEPS[method] if steps is None else steps
    copies = COPIES[method] if copies is None else copies
    check_count(copies, what="copies")
    objective, settings = _settings(model, site, units, method, side, copies, TV if tv is None else tv, images)
    found = synthesize(model, objective, stages=Stage(side, steps), seed=seed, **{**settings, **knobs})
    _check_alive(model, excitation(model, site, units), found.images, knobs.get("batch") or _A_PASS)
    return found


def _settings(
    model: Model, site: str, units: Units, method: str, side: int, copies: int, tv: float, images: Tensor | None
) -> tuple[Objective, dict[str, Any]]:
    """The objective and what else a method sets."""
    if method in _PENALIZED:
        published = method == "paper"
        form, noise = ("multiply", GaussianNoise(1.0)) if published else ("divide", GaussianNoise(0.5, 0.0, "channel"))
        objective = maximize(excitation(model, site, units, over="sum" if published else "mean"))
        objective = (objective if published else (1 / copies) * objective) + tv * total_variation()
        # The released code rolls last, which is the same: color and its noise are alike at all pixels of a channel.
        seen = [Jitter.for_size(side), Ensemble(copies), ColorShift(1.0, 1.0, form), noise]
        return objective, {"parametrization": Pixels(), "augmentations": seen, "optimizer": Adam(0.1)}
    objective = maximize(excitation(model, site, units))
    if method == "fourier":
        small, smaller = Jitter(round(8 * side / 128)), Jitter(round(4 * side / 128))
        seen = [Ensemble(copies), small, Affine(10.0, (0.9, 1.1)), smaller]
        return objective, {
            "parametrization": Fourier(), "augmentations": seen, "optimizer": Adam(0.05, (0.9, 0.999), "constant"),
        }  # fmt: skip
    if images is None:
        raise ValueError("maco holds the mean spectrum of real images fixed: give images (n, c, size, size)")
    check_images(images)
    seen = [Ensemble(copies), Crop((0.2, 0.25)), GaussianNoise(0.1)]
    return objective, {
        "parametrization": Phases(mean_spectrum(images)), "augmentations": seen,
        "optimizer": Adam(1.0, (0.9, 0.999), "constant"), "channels": images.shape[1],
    }  # fmt: skip


def own_size(model: Model) -> int:
    """The side of the square images that a network was made for, as it says of itself.

    Raises:
        ValueError: it does not say so, or they are no squares.
    """
    network, said = as_module(model), None
    while network is not None and said is None:
        size, config = getattr(network, "size", None), getattr(network, "pretrained_cfg", None) or {}
        patches = getattr(network, "patch_embed", None)
        sizes = (size, getattr(patches, "img_size", None), getattr(network, "image_size", None))
        said = next((s for s in sizes if s is not None), None) or (config.get("input_size") or (None,))[-1]
        network = inside(network)
    sides = set(said) if isinstance(said, tuple) else {said}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError("the model does not say what size of square images it was made for: give size, in pixels")
    return side


def _check_alive(model: Model, objective: Objective, images: Tensor, batch: int) -> None:
    """Refuse images of dead units alone, and name the dead among others: such an image shows noise and no unit."""
    watcher, still = Watcher(model, objective.layers), []
    device = device_of(model) or images.device
    with borrowed(model, "a visualization"), watcher.watching():
        for place in torch.arange(len(images)).split(batch):
            x = images[place].to(device).requires_grad_()
            seen = {name: value[:, None] for name, value in watcher(x).items()}
            (gradient,) = torch.autograd.grad(objective(seen, place.to(device)).sum(), x)
            still += place[(gradient == 0).flatten(1).all(dim=1).cpu()].tolist()
    if not still:
        return
    said = (
        f"{objective.name}: {len(still)} of {len(images)} have no gradient at the image they came to, such as number "
        f"{still[0]} of those given. They are dead, or behind a ReLU that is off: read the layer before it, or choose "
        "units that fire on data"
    )
    if len(still) == len(images):
        raise ValueError(said)
    warnings.warn(said, stacklevel=3)
