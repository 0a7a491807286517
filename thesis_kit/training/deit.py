"""Distillation through attention: a vision transformer with a token of its own for what a teacher says.

Touvron, Cord, Douze, Massa, Sablayrolles and Jégou (ICML 2021): DeiT has a class token and a distillation token, each
with a linear head. The first learns the true labels, the second the teacher's hard decisions on the same images, with
equal weights. Afterwards the two heads' logits are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask, evaluating
from thesis_kit.checks import check_logits, check_same_device
from thesis_kit.identity import fingerprint
from thesis_kit.models import zoo
from thesis_kit.models.classifier import Classifier
from thesis_kit.training.method import Classification
from thesis_kit.training.run import Run

_HEADS = ("head", "head_dist")  # timm's names


@dataclass
class HardDistillation(Classification):
    """½ cross-entropy of the class head with labels + ½ of the other head with the teacher's. One pass an update.

    The model is one of timm's distilled transformers ("deit_tiny_distilled_patch16_224"), as ``models.build`` wraps it.
    Terms of the loss are added, as to any method's.

    Args:
        teacher: the name of a zoo model, or a network from pixels in [0, 1] to logits of the same classes, on the same
            device. Its own passes, in evaluation mode, are not counted.

    Raises:
        ValueError: a model without the two heads; a teacher of other classes.
        NonFiniteOutput: the teacher's logits are NaN or infinite.

    Source: Touvron et al. 2021, section 4, "hard-label distillation".
    """

    teacher: str | nn.Module
    weights: str | None = field(default=None, init=False)  # of a teacher that has no name
    _network: nn.Module | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.weights = None if isinstance(self.teacher, str) else fingerprint(self.teacher)

    def minibatch(self, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], run: Run) -> None:
        """Descend at x, towards labels and teacher."""
        heads, taught, seen = _heads(run.model), self._decisions(x), {}

        def loss(x: Tensor, y: Tensor) -> Tensor:
            hooks = [
                head.register_forward_hook(lambda module, inputs, logits, name=name: seen.setdefault(name, logits))
                for name, head in heads.items()
            ]
            try:
                usual = run.loss(x, y)  # with the loss of the heads' mean, in whose place theirs come
            finally:
                for hook in hooks:
                    hook.remove()
            own, other = (seen[name].float() for name in _HEADS)
            if taught.shape[1] != other.shape[1]:
                raise ValueError(f"the teacher has {taught.shape[1]} classes, the model {other.shape[1]}")
            ours = (F.cross_entropy(own, y) + F.cross_entropy(other, taught.argmax(dim=1))) / 2
            return usual + ours - F.cross_entropy((own + other) / 2, y)

        run.descend(x, y, loss=loss)

    @torch.no_grad()
    def _decisions(self, x: Tensor) -> Tensor:
        """The teacher's logits (n, k)."""
        if self._network is None:
            named = isinstance(self.teacher, str)
            self._network = zoo.load(self.teacher).to(x.device) if named else self.teacher
        check_same_device(self._network, x)
        with evaluating(self._network):
            logits = ask(self._network, x)
        check_logits(logits, len(x))
        return logits


def _heads(model: nn.Module) -> dict[str, nn.Module]:
    network = model.network if isinstance(model, Classifier) else model
    heads = {name: getattr(network, name, None) for name in _HEADS}
    if not all(isinstance(head, nn.Module) for head in heads.values()):
        raise ValueError(
            f"distillation needs a class head and a distillation head, {type(network).__name__} has no "
            f"{' or '.join(name for name, head in heads.items() if not isinstance(head, nn.Module))}: take a distilled "
            "transformer, such as deit_tiny_distilled_patch16_224"
        )
    return heads
