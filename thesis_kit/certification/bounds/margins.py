"""Certified lower bounds of classification margins over an ℓ∞ box of images: interval bounds, CROWN-IBP and CROWN.

The margin of label y over class j is z_y − z_j. A positive lower bound for every j ≠ y proves that no image of the box
is classified otherwise. Interval bound propagation (Gowal et al. 2018) pushes a box through the layers, in about two
forward passes. CROWN (Zhang et al. 2018) pulls a linear function of the logits back to the image, past lines above and
below each activation; CROWN-IBP (Zhang et al. 2020) does so once, with the lines from interval bounds.

The bounds are those of the function that the network computes in evaluation mode, whatever its modules' modes, which
are neither read nor changed: BatchNorm is the affine map of its running statistics and dropout does nothing. A model
whose function cannot be told from its layers (hooks, patched methods) is refused, and every call compares the layers
with the model itself at the images and a few more points of their boxes. Bounds have gradients with respect to
parameters and images, come in the precision of the images, and hold up to rounding in that precision or the model's,
whichever is coarser.
"""

from __future__ import annotations

from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from thesis_kit.asking import Model, as_module
from thesis_kit.certification.bounds.activations import LOWER_SLOPES
from thesis_kit.certification.bounds.boxes import Box, CenteredBox, corners, outside_inference_mode
from thesis_kit.certification.bounds.crown import crown, crown_ibp, ibp
from thesis_kit.certification.bounds.door import check_agreement
from thesis_kit.certification.bounds.tracing import Network, trace
from thesis_kit.checks import check_same_device, choose


@outside_inference_mode
def ibp_margins(
    model: Model, x: Float[Tensor, "n c h w"] | Box, y: Int[Tensor, " n"], eps: float | None = None
) -> Float[Tensor, "n k"]:
    """Lower bounds of the margins z_y − z_j over a box, by interval bound propagation.

    The margins are bounded through the last affine layer at once, which is tighter than to subtract bounds of logits.

    Args:
        model: pixels to logits, of layers that bounds are known for: those that the error of any other lists.
        x: images with pixels in [0, 1], and the box is [x − eps, x + eps] ∩ [0, 1]; or a ``Box``, without eps.
        y: labels.
        eps: ℓ∞ radius of at least 0.

    Returns:
        (n, k), column j for class j; 0 where j = y.

    Raises:
        UnsupportedLayer: a layer that no bounds are known for, or the model does not compute what its layers say.
        ValueError, TypeError: unfit images, labels or eps.

    Source: Gowal et al. 2018, section 3 (the merged last layer: the elision of the last layer there).

    Examples:
        >>> margins = tk.certification.ibp_margins(model, digits.x, digits.y, 0.001)
        >>> margins.shape
        torch.Size([4, 10])
    """
    return ibp(*_looked_at(model, x, eps), y)


@outside_inference_mode
def crown_ibp_margins(
    model: Model, x: Float[Tensor, "n c h w"] | Box, y: Int[Tensor, " n"], eps: float | None = None, *,
    lower_slope: str = "adaptive",
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Lower bounds of the margins by one backward pass of CROWN between interval bounds.

    Args:
        model, x, y, eps: as for ``ibp_margins``.
        lower_slope: of the line below a ReLU on [l, u] with l < 0 < u: "adaptive" (1 if u > −l, else 0), "zero",
            "one", or "same" (u / (u − l), as above it). With "zero" the bounds are never below ``ibp_margins`` if all
            activations are ReLUs. Other activations have the line that leaves the least area.

    Returns, raises: as ``ibp_margins``.

    Source: Zhang et al. 2020 (arXiv 1906.06316), section 3; max pooling: Singh et al. 2019 (DeepPoly);
    smooth activations: ``curves.py``.

    Examples:
        >>> margins = tk.certification.crown_ibp_margins(model, digits.x, digits.y, 0.01)
        >>> margins.shape
        torch.Size([4, 10])
    """
    choose(lower_slope, list(LOWER_SLOPES), "lower slope")
    return crown_ibp(*_looked_at(model, x, eps), y, lower_slope)


@outside_inference_mode
def crown_margins(
    model: Model, x: Float[Tensor, "n c h w"] | Box, y: Int[Tensor, " n"], eps: float | None = None, *,
    lower_slope: str = "adaptive", pure: bool = False,
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Lower bounds of the margins by CROWN, with bounds before each activation by backward passes too.

    Where interval bounds before an activation are better, they are kept, and of the margins the best of this,
    ``crown_ibp_margins`` and ``ibp_margins`` is returned. The cost is two backward passes for each neuron that is not
    linear on the box, so this is for small networks.

    Args:
        model, x, y, eps, lower_slope: as for ``crown_ibp_margins``.
        pure: CROWN alone, as published; it can be worse than intervals.

    Returns, raises: as ``crown_ibp_margins``.

    Source: Zhang et al. 2018 (CROWN), section 3.

    Examples:
        >>> margins = tk.certification.crown_margins(model, digits.x, digits.y, 0.01)
        >>> margins.shape
        torch.Size([4, 10])
    """
    choose(lower_slope, list(LOWER_SLOPES), "lower slope")
    return crown(*_looked_at(model, x, eps), y, lower_slope, pure=pure)


BOUNDS = {
    "ibp": ibp_margins,
    "crown-ibp": crown_ibp_margins,
    "crown": crown_margins,
    "crown-pure": partial(crown_margins, pure=True),
}
# The same of a network in steps and an interval of images, (network, box, y) -> (n, k): for loops that have looked at
# the model before they begin.
BOUNDS_OF_STEPS = {"ibp": ibp, "crown-ibp": crown_ibp, "crown": crown, "crown-pure": partial(crown, pure=True)}


def steps_of(model: Model, x: Tensor, eps: float, *, look: bool = True) -> Network:
    """The model in steps for ``BOUNDS_OF_STEPS``, on images like x and boxes of radius ``eps`` around them.

    Unless ``look``, nobody checks that the steps compute what the model does: for loops that have done so.

    Raises:
        UnsupportedLayer: a layer that no bounds are known for, or the steps and the model disagree. ValueError,
            TypeError: unfit images or eps.
    """
    lower, upper = corners(x, eps)
    return _steps(as_module(model), x if look else None, lower, upper)


def _looked_at(model: Model, x: Tensor | Box, eps: float | None) -> tuple[Network, CenteredBox]:
    """The model in steps, compared with the model, and the box."""
    if isinstance(x, Box) != (eps is None):
        raise ValueError("give images with eps, or a Box without")
    lower, upper = (x.lower, x.upper) if isinstance(x, Box) else corners(x, eps)
    box = CenteredBox.between(lower, upper)
    return _steps(as_module(model), box.center if isinstance(x, Box) else x, lower, upper), box


def _steps(model: nn.Module, looked_at: Tensor | None, lower: Tensor, upper: Tensor) -> Network:
    check_same_device(model, lower)
    network = trace(model, lower)
    if looked_at is not None:
        check_agreement(model, network, looked_at, lower, upper)
    return network
