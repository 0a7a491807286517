"""What an image is to do to a network: objectives that add and scale.

An objective names the layers it reads and turns what was seen there into one number a target, to be made *small*: to
excite a channel, ask for ``maximize(channel(…))``, which is ``-channel(…)``. Layers are names of
``model.named_modules()``; ``LOGITS`` is the model's output and ``IMAGES`` the augmented images. What was seen has shape
(n, e, …), e copies of each of n targets; objectives take the mean over the copies.

``cross_entropy(classes) + 1e-3 * total_variation()`` is an objective; so is ``-channel("layer2.0.conv1", [3, 7])``. The
vocabulary is that of feature visualization (Olah, Mordvintsev and Schubert, Distill 2017).

It is long: they are short functions of one kind, which are chosen among by reading, each with an example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.asking import plain
from thesis_kit.checks import choose
from thesis_kit.recording.watching import IMAGES, LOGITS

Seen = Mapping[str, Tensor]
Read = Callable[[Seen, Tensor], Tensor]


class Objective:
    """A number a target, to be made small.

    Args:
        layers: what is read, names of modules, ``LOGITS`` or ``IMAGES``.
        read: (what was seen, index) -> (n,), where index (n,) says which of all targets the rows are.
        name: for messages.
        targets: how many targets the objective was made for; None fits any number.
        couples_copies: whether a target's copies act on one another in it (statistics over copies).
        settings: what decides its values, as text: two objectives with equal settings may share a checkpoint. Without
            them an objective, or a sum that it is part of, has no checkpoint.
        optional: those of the layers that a pass need not reach; ``read`` looks whether they were seen.
    """

    def __init__(
        self, layers: Sequence[str], read: Read, name: str, *, targets: int | None = None, couples_copies: bool = False,
        settings: str | None = None, optional: Collection[str] = (),
    ):  # fmt: skip
        self.layers, self.read, self.name = tuple(dict.fromkeys(layers)), read, name
        self.targets, self.couples_copies = targets, couples_copies
        self.settings, self.optional = settings, frozenset(optional)

    def __call__(self, seen: Seen, index: Tensor) -> Tensor:
        value = self.read(seen, index)
        if value.shape != index.shape:
            raise ValueError(
                f"{self.name} must give one number for each of {len(index)} targets, got {tuple(value.shape)}"
            )
        return value

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        counts = {count for count in (self.targets, other.targets) if count is not None}
        if len(counts) > 1:
            raise ValueError(f"{self.name} is for {self.targets} targets and {other.name} for {other.targets}")
        return Objective(
            self.layers + other.layers, lambda seen, index: self(seen, index) + other(seen, index),
            f"{self.name} + {other.name}", targets=counts.pop() if counts else None,
            couples_copies=self.couples_copies or other.couples_copies,
            settings=_combined("({}) + ({})", self.settings, other.settings),
            optional=(self.optional | other.optional) - self._needed - other._needed,
        )  # fmt: skip

    def __radd__(self, nothing: int) -> Objective:
        return self if nothing == 0 else NotImplemented  # where ``sum`` begins

    def __mul__(self, factor: float) -> Objective:
        if isinstance(factor, Objective):
            return NotImplemented
        return Objective(
            self.layers, lambda seen, index: factor * self(seen, index), f"{factor:g} · {self.name}",
            targets=self.targets, couples_copies=self.couples_copies,
            settings=_combined(f"{float(factor)!r} ({{}})", self.settings), optional=self.optional,
        )  # fmt: skip

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    @property
    def _needed(self) -> set[str]:
        """Layers that a pass must reach."""
        return set(self.layers) - self.optional

    def __repr__(self) -> str:
        return f"<objective {self.name}>"


def _combined(form: str, *settings: str | None) -> str | None:
    """Settings of an objective made of others; None where one of them has none."""
    return None if None in settings else form.format(*settings)


def maximize(objective: Objective) -> Objective:
    """What is to be made large, as something to be made small: minus it.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.synthesis.logit([3]))
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([1, 1, 8, 8])
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"what is maximized must be an objective, such as channel(layer, channels), got {objective!r}")
    return -objective


def cross_entropy(classes: Sequence[int]) -> Objective:
    """−log softmax(z)_c of each target's class, the loss of class inversion.

    Examples:
        >>> objective = tk.synthesis.cross_entropy([3, 7])
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([2, 1, 8, 8])
    """
    wanted = whole_numbers(classes, "classes")

    def read(seen: Seen, index: Tensor) -> Tensor:
        logits = seen[LOGITS]  # (n, e, k)
        y = _of(wanted, index, logits).repeat_interleave(logits.shape[1])
        _check_classes(y, logits.shape[-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), y, reduction="none").view(logits.shape[:2]).mean(dim=1)

    return Objective([LOGITS], read, "cross-entropy", targets=len(wanted), settings=f"cross-entropy {wanted.tolist()}")


def logit(classes: Sequence[int]) -> Objective:
    """The logit of each target's class.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.synthesis.logit([3]))
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([1, 1, 8, 8])
    """
    wanted = whole_numbers(classes, "classes")

    def read(seen: Seen, index: Tensor) -> Tensor:
        logits = seen[LOGITS].float()
        y = _of(wanted, index, logits)
        _check_classes(y, logits.shape[-1])
        return logits.gather(2, y[:, None, None].expand(-1, logits.shape[1], 1))[..., 0].mean(dim=1)

    return Objective([LOGITS], read, "logit", targets=len(wanted), settings=f"logit {wanted.tolist()}")


def channel(layer: str, channels: Sequence[int], *, channels_last: bool = False) -> Objective:
    """Mean activation of each target's channel over positions: of maps (c, h, w), tokens (t, c) or vectors (c,).

    ``channels_last`` reads maps as (h, w, c), as Swin Transformers and the ``mlp`` of a ConvNeXt give them; which of
    the two a map is cannot be seen from it.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.synthesis.channel("network.4", [0, 1]))
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([2, 1, 8, 8])
    """
    wanted = whole_numbers(channels, "channels")

    def read(seen: Seen, index: Tensor) -> Tensor:
        return _positions(_last(seen[layer], channels_last), wanted, index, layer).mean(dim=(1, 2))

    return Objective(
        [layer], read, f"channel of {layer}", targets=len(wanted),
        settings=f"channel of {layer} {wanted.tolist()} {channels_last}",
    )  # fmt: skip


def neuron(
    layer: str, channels: Sequence[int], position: int | tuple[int, int] | None = None, *, channels_last: bool = False
) -> Objective:
    """Activation of each target's channel at one position: (row, column) of a map or number of a token.

    The middle unless given; tokens that make a square, after a class token and its like, are patches, and the middle
    one is in the middle of the image. ``channels_last`` as in ``channel``.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.synthesis.neuron("network.4", [0]))
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([1, 1, 8, 8])
    """
    wanted = whole_numbers(channels, "channels")

    def read(seen: Seen, index: Tensor) -> Tensor:
        activation = seen[layer]
        rows = _positions(_last(activation, channels_last), wanted, index, layer)  # (n, e, positions)
        return rows[:, :, _place(activation, position, channels_last)].mean(dim=1)

    return Objective(
        [layer], read, f"neuron of {layer}", targets=len(wanted),
        settings=f"neuron of {layer} {wanted.tolist()} {position} {channels_last}",
    )  # fmt: skip


def direction(layer: str, vectors: Tensor, *, channels_last: bool = False) -> Objective:
    """Mean over positions of the activation along each target's direction, a row of ``vectors`` (targets, c), whose
    length does not matter. ``channels_last`` as in ``channel``.

    Raises:
        ValueError: vectors of another shape, or one that has no direction.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.synthesis.direction("network.4", torch.eye(32)[:2]))
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([2, 1, 8, 8])
    """
    vectors = plain(vectors)
    lengths = vectors.norm(dim=-1, keepdim=True)
    if vectors.ndim != 2 or not ((lengths > 0) & torch.isfinite(lengths)).all():
        raise ValueError(f"directions must be rows (targets, c), finite and not zero, got shape {tuple(vectors.shape)}")
    wanted = vectors / lengths

    def read(seen: Seen, index: Tensor) -> Tensor:
        features = _last(seen[layer], channels_last).float()  # (n, e, positions, c)
        rows = _of(wanted, index, features).float()
        if rows.shape[1] != features.shape[-1]:
            raise ValueError(f"{layer} has {features.shape[-1]} channels, the directions have {rows.shape[1]}")
        return torch.einsum("nepc,nc->nep", features, rows).mean(dim=(1, 2))

    return Objective(
        [layer], read, f"direction in {layer}", targets=len(wanted),
        settings=f"direction in {layer} {wanted.tolist()} {channels_last}",
    )  # fmt: skip


def layer(name: str) -> Objective:
    """Mean square of everything a layer gives: what DeepDream excites.

    Examples:
        >>> objective = tk.synthesis.maximize(tk.synthesis.layer("network.4"))
        >>> stage = tk.synthesis.Stage(8, 2)
        >>> tk.synthesis.synthesize(model, objective, targets=1, channels=1, stages=stage).images.shape
        torch.Size([1, 1, 8, 8])
    """

    def read(seen: Seen, index: Tensor) -> Tensor:
        return seen[name].float().square().flatten(1).mean(dim=1)

    return Objective([name], read, f"layer {name}", settings=f"layer {name}")


_TV_FORMS = ("planes", "squares")
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def total_variation(form: str = "planes") -> Objective:
    """How much neighboring pixels of the augmented images differ.

    "planes": Σ over four directions of the ℓ₂ norm of the whole plane of differences, mean over channels, times
    hw / 224² (the released code of Plug-In Inversion, whose published weights belong to it). "squares": the mean
    squared difference of horizontal and vertical neighbors.

    Examples:
        >>> objective = tk.synthesis.cross_entropy([3]) + 0.1 * tk.synthesis.total_variation()
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([1, 1, 8, 8])
    """
    choose(form, _TV_FORMS, "form of total variation")

    def read(seen: Seen, index: Tensor) -> Tensor:
        x = seen[IMAGES].float()
        if form == "squares":
            axes = [axis for axis in (-1, -2) if x.shape[axis] > 1]  # along a side of one pixel there are no neighbors
            squares = (x.diff(dim=axis).square().flatten(2).mean(dim=2) for axis in axes)
            return sum(squares, torch.zeros_like(x[:, :, 0, 0, 0])).mean(dim=1)
        planes = [(_moved(x, *shift) - _still(x, *shift)).flatten(3).norm(dim=3) for shift in _SHIFTS]  # (n, e, c)
        return sum(planes).mean(dim=(1, 2)) * x.shape[-1] * x.shape[-2] / 224**2

    return Objective([IMAGES], read, "total variation", settings=f"total variation of {form}")


def l2() -> Objective:
    """Euclidean norm of the augmented images, mean over copies (DeepInversion's ``R_l2``).

    Examples:
        >>> objective = tk.synthesis.cross_entropy([3]) + 0.01 * tk.synthesis.l2()
        >>> tk.synthesis.synthesize(model, objective, channels=1, stages=tk.synthesis.Stage(8, 2)).images.shape
        torch.Size([1, 1, 8, 8])
    """

    def read(seen: Seen, index: Tensor) -> Tensor:
        return seen[IMAGES].float().flatten(2).norm(dim=2).mean(dim=1)

    return Objective([IMAGES], read, "ℓ₂ norm", settings="ℓ₂ norm")


def batchnorm_statistics(model: nn.Module, *, first: float = 10.0) -> Objective:
    """Distance of each BatchNorm's input statistics from its running ones: Σ ‖μ − μ̂‖₂ + ‖σ² − σ̂²‖₂.

    A target's statistics are taken over its own copies and positions, so copies of one target act on one another and
    targets do not. Layers that a pass in evaluation mode does not reach, as those of an auxiliary head, do not count,
    and of one that is used several times in a pass the first use counts.

    Args:
        model: whose BatchNorm layers are read, from their inputs.
        first: weight of the first of them.

    Raises:
        ValueError: the model has no BatchNorm with running statistics; later, if a pass reaches none of them.

    Source: Yin et al., CVPR 2020 (DeepInversion).

    Examples:
        >>> resnet = tk.zoo.load("resnet-scenes-a-natural")
        >>> objective = tk.synthesis.cross_entropy([0]) + 0.1 * tk.synthesis.batchnorm_statistics(resnet)
        >>> tk.synthesis.synthesize(resnet, objective, stages=tk.synthesis.Stage(16, 2)).images.shape
        torch.Size([1, 3, 16, 16])
    """
    norms = {
        name: module for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }  # fmt: skip
    if not norms:
        raise ValueError("the model has no batch normalization, so there are no statistics to hold on to")

    def read(seen: Seen, index: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        reached = [(name, norm) for name, norm in norms.items() if _input(name) in seen]
        if not reached:
            raise ValueError("a pass in evaluation mode reaches none of the model's BatchNorm layers")
        for place, (name, norm) in enumerate(reached):
            features = seen[_input(name)].float()  # (n, e, c, …)
            features = features.transpose(1, 2).flatten(2)  # (n, c, e · positions)
            mean, variance = features.mean(dim=2), features.var(dim=2, correction=0)
            gap = (mean - norm.running_mean).norm(dim=1) + (variance - norm.running_var).norm(dim=1)
            total = total + (first if place == 0 else 1.0) * gap
        return total

    names = [_input(name) for name in norms]
    return Objective(
        names, read, "BatchNorm statistics", couples_copies=True, settings=f"BatchNorm statistics {first!r}",
        optional=names,
    )  # fmt: skip


def _input(layer: str) -> str:
    """The name under which a layer's input is seen."""
    return f"input of {layer}"


def _of(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """The rows' own values, on their device."""
    return values.to(like.device)[index]


def whole_numbers(values: Sequence[int], what: str) -> Tensor:
    """One whole number a target, (targets,)."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be whole numbers, one a target, got {values!r}") from error
    whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool) or len(found) == 0
    if found.ndim != 1 or not whole:
        raise TypeError(f"{what} must be whole numbers, one a target, got {values!r}")
    return found.to(torch.int64)


def _check_classes(y: Tensor, n_classes: int) -> None:
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < n_classes:
        seen = y.unique().tolist()
        raise ValueError(f"classes must lie in [0, {n_classes - 1}], for the model has {n_classes} outputs; got {seen}")


def _last(activation: Tensor, channels_last: bool) -> Tensor:
    """Positions and then channels, whatever the layer gives: (n, e, c, h, w), (n, e, t, c) or (n, e, c)."""
    if activation.ndim == 5:
        return activation.flatten(2, 3) if channels_last else activation.flatten(3).transpose(2, 3)
    return activation if activation.ndim == 4 else activation[:, :, None]


def _positions(features: Tensor, wanted: Tensor, index: Tensor, layer: str) -> Tensor:
    """Each target's channel at all positions: (n, e, positions, c) -> (n, e, positions)."""
    channels = _of(wanted, index, features)
    if len(channels) and not 0 <= int(channels.min()) <= int(channels.max()) < features.shape[-1]:
        raise ValueError(f"{layer} has {features.shape[-1]} channels, got {channels.tolist()[:8]}")
    wanted = channels.view(-1, 1, 1, 1).expand(-1, *features.shape[1:3], 1)
    return features.gather(3, wanted)[..., 0].float()


def _place(activation: Tensor, position: int | tuple[int, int] | None, channels_last: bool) -> int:
    """A position as the number of it in (h · w) or t."""
    if activation.ndim == 5:
        height, width = activation.shape[2:4] if channels_last else activation.shape[3:5]
        if isinstance(position, int):
            raise ValueError(f"the map is {height} × {width}: give a position as (row, column), not {position}")
        row, column = (height // 2, width // 2) if position is None else position
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"the map is {height} × {width}, got the position {position}")
        return row * width + column
    count = activation.shape[2] if activation.ndim == 4 else 1
    place = _middle(count) if position is None else position
    if not isinstance(place, int) or not 0 <= place < count:
        raise ValueError(f"there are {count} positions, got {position}")
    return place


def _middle(count: int) -> int:
    """The middle of so many tokens."""
    for special in (0, 1, 2, 5):  # before the patches: none, a class token, one for a teacher too, or four registers
        side = math.isqrt(max(count - special, 0))
        if side >= 3 and side**2 == count - special:
            return special + side // 2 * side + side // 2
    return count // 2


def _moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """The part of x that has a neighbor at (−rows, −columns), as the later one of each pair."""
    width = x.shape[-1]
    return x[..., rows:, max(columns, 0) : width + min(columns, 0)]


def _still(x: Tensor, rows: int, columns: int) -> Tensor:
    """The earlier one of each pair."""
    height, width = x.shape[-2:]
    return x[..., : height - rows, max(-columns, 0) : width - max(columns, 0)]
