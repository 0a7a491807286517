"""What a model is made of: its steps, read from its modules, or from its own ``forward`` where that can be traced."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thesis_kit.asking import KeepMode, _Function
from thesis_kit.certification.bounds.boxes import CenteredBox
from thesis_kit.certification.bounds.forwards import trace_forward
from thesis_kit.certification.bounds.layers import LAYERS, SUPPORTED, Unbounded, scaled
from thesis_kit.certification.bounds.operations import AffineStep, Operation, Step, Sum
from thesis_kit.certification.bounds.plain import (
    UnsupportedLayer,
    check_hooks,
    check_plain,
    kind_of,
    named,
    weights_of,
)
from thesis_kit.models.classifier import Classifier
from thesis_kit.models.residual import PreActivationBlock

_PROBES = 3  # images that shapes are learned from; no network counts on so many


@dataclass(frozen=True)
class Network:
    """A model in steps: value 0 is the image, step i makes value i + 1, and the last value is the logits."""

    steps: list[Step]

    def value(self, x: Tensor) -> Tensor:
        """Its output at images (n, c, h, w)."""
        values = [x]
        for operation, sources in self.steps:
            values.append(operation.value([values[source] for source in sources]))
        return values[-1]

    def propagate(self, box: CenteredBox) -> tuple[list[CenteredBox], CenteredBox]:
        """Interval bounds of the inputs and the output of the last step; the others go once nothing needs them."""
        last_use = {source: number for number, step in enumerate(self.steps) for source in step.sources}
        values, inputs, output = {0: box}, [box], box
        for number, (operation, sources) in enumerate(self.steps):
            inputs = [values[source] for source in sources]
            values[number + 1] = output = operation.interval(inputs)
            for source in {*sources}:
                if last_use[source] == number:
                    del values[source]
        return inputs, output


def trace(model: nn.Module, x: Tensor) -> Network:
    """The model's steps for images like x (n, c, h, w), in the precision of x.

    Raises:
        UnsupportedLayer: a layer that no bounds are known for. ValueError: x has another number of channels.
    """
    tracer = Tracer(x)
    output = tracer.trace(model, "")
    if output != len(tracer.steps) or not tracer.steps:  # what comes last is what is bounded
        tracer.add(AffineStep(lambda x, *_: x), output)
    return Network(tracer.steps)


class Tracer:
    """Turns a model into steps, one module after the other."""

    def __init__(self, image: Tensor):
        self.shape, self.dtype, self.steps = image.shape, image.dtype, []
        generator = torch.Generator().manual_seed(0)
        self._make_probe = lambda: torch.rand(_PROBES, *image.shape[1:], generator=generator, dtype=torch.float64)
        self._device, self._probes = image.device, []

    def trace(self, module: nn.Module, path: str, value: int = 0) -> int:
        """Append a module's steps on ``value``; returns the number of the module's output."""
        if type(module).__name__ == "OptimizedModule" and isinstance(getattr(module, "_orig_mod", None), nn.Module):
            check_hooks(module, path)  # torch.compile: the same function, made faster
            return self.trace(module._orig_mod, path, value)
        check_plain(module, path)
        kind = kind_of(module, CONTAINERS) or kind_of(module, LAYERS)
        if kind in CONTAINERS:
            return CONTAINERS[kind](self, module, path, value)
        if kind is not None:
            try:
                operation = LAYERS[kind](module, weights_of(module), self.dtype)
            except Unbounded:
                self.refuse(module, path)
            return value if operation is None else self.add(operation, value)
        return trace_forward(self, module, path, value)

    @staticmethod
    def knows(module: nn.Module) -> bool:
        """Whether a module is traced as a whole."""
        if kind_of(module, [PreActivationBlock]):
            return _as_built(module)
        return kind_of(module, CONTAINERS) is not None or kind_of(module, LAYERS) is not None

    def touches(self, module: nn.Module) -> tuple[bool, bool]:
        """Whether a module that is traced as a whole may write into its input, and whether its output may lie there."""
        container = kind_of(module, CONTAINERS)
        if container is None:
            return bool(getattr(module, "inplace", False)), kind_of(module, [nn.Flatten]) is not None
        if container is PreActivationBlock or (container is Classifier and module.normalizes):
            return False, False
        inner = [one for one in module.modules() if one is not module]
        return any(getattr(one, "inplace", False) or not self.knows(one) for one in inner), True

    def refuse(self, module: nn.Module, path: str) -> None:
        """Say that there are no bounds for a module."""
        raise UnsupportedLayer(f"no bounds are known for {named(module, path)}: supported are {SUPPORTED}")

    def add(self, operation: Operation, *sources: int) -> int:
        """Append a step; returns the number of what it makes."""
        self.steps.append(Step(operation, sources))
        return len(self.steps)

    @torch.no_grad()
    def probe(self, value: int) -> Tensor:
        """A value at a few random images, which tells its shape."""
        if not self._probes:
            self._probes.append(self._make_probe().to(self._device, self.dtype))
        while len(self._probes) <= value:
            operation, sources = self.steps[len(self._probes) - 1]
            self._probes.append(operation.value([self._probes[source] for source in sources]))
        return self._probes[value]

    def _sequential(self, module: nn.Sequential, path: str, value: int) -> int:
        for name, child in module._modules.items():  # named_children would leave out repetitions
            value = self.trace(child, joined(path, name), value)
        return value

    def _parallel(self, module: nn.DataParallel, path: str, value: int) -> int:
        return self.trace(module.module, joined(path, "module"), value)

    def _keep_mode(self, module: KeepMode, path: str, value: int) -> int:
        return self.trace(module.model, joined(path, "model"), value)

    def _function(self, module: _Function, path: str, value: int) -> int:
        return trace_forward(self, module, path, value, module.function)

    def _classifier(self, module: Classifier, path: str, value: int) -> int:
        if module.size not in (None, tuple(self.shape[-2:])):
            raise UnsupportedLayer(
                f"{path or 'the model'}, a Classifier, resizes images from {tuple(self.shape[-2:])} to {module.size}: "
                "bound it on images of that size"
            )
        if module.normalizes:
            channels = module.mean.shape[1]
            if self.shape[1] != channels:
                raise ValueError(f"the model takes {channels} channels, got images of shape {tuple(self.shape)}")
            scale = 1 / module.std.flatten().to(self.dtype)
            shift = (-module.mean.flatten() * scale).to(self.dtype)
            value = self.add(AffineStep(scaled, scale, shift), value)
        return self.trace(module.network, joined(path, "network"), value)

    def _block(self, module: PreActivationBlock, path: str, value: int) -> int:
        if not _as_built(module):
            return trace_forward(self, module, path, value)

        def chain(value: int, *names: str) -> int:
            for name in names:
                value = self.trace(getattr(module, name), joined(path, name), value)
            return value

        activated = chain(value, "norm1", "act1")
        skipped = value if module.shortcut is None else chain(activated, "shortcut")
        return self.add(Sum(), skipped, chain(activated, "conv1", "norm2", "act2", "conv2"))


def _as_built(block: PreActivationBlock) -> bool:
    """Whether its layers are of the kinds that it was made with: others might write into their input."""
    norms = (kind_of(one, [nn.BatchNorm2d]) for one in (block.norm1, block.norm2))
    convolutions = (kind_of(one, [nn.Conv2d]) for one in (block.conv1, block.conv2, block.shortcut) if one is not None)
    return all(norms) and all(convolutions)


CONTAINERS = {
    nn.Sequential: Tracer._sequential,
    nn.DataParallel: Tracer._parallel,
    KeepMode: Tracer._keep_mode,
    _Function: Tracer._function,
    Classifier: Tracer._classifier,
    PreActivationBlock: Tracer._block,
}


def joined(path: str, name: str) -> str:
    """The path of a module's part."""
    return f"{path}.{name}" if path else name
