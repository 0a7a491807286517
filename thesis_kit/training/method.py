"""What a way to train is: what it wants of a minibatch, and what it does with one.

A minibatch is inputs and targets. Inputs are a tensor (n, …); targets are whatever the method reads: class labels,
token ids, transcripts with their lengths. ``training.train`` serves minibatches to a method, whose ``minibatch`` makes
one or several updates by ``run.descend(x, y, loss=…)``; checkpoint, schedule, precision and the counting of passes are
the loop's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from thesis_kit.checks import check_images, check_labels, check_same_device
from thesis_kit.models.seen import check_has_classes

if TYPE_CHECKING:
    from thesis_kit.training.run import Run


class Method(ABC):
    """A way to train.

    ``replays`` is how many updates a minibatch serves, ``training_mode`` whether normalization and dropout behave as in
    training, and ``version`` a number that is raised where a method of the same name comes to mean something else:
    checkpoints of another version are refused.
    """

    replays = 1
    training_mode = True
    version = 1

    def check(self, model: nn.Module, x: Tensor, y: Any, run: Run) -> None:
        """Require a minibatch that the method can read; called before every one, on the images as the data give them.

        Raises:
            ValueError, TypeError: what was seen and what to do.
        """
        check_same_device(model, x)

    @abstractmethod
    def minibatch(self, x: Tensor, y: Any, run: Run) -> None:
        """Update on inputs x (n, …) and targets y, ``replays`` times or until ``run.updates_left`` is 0."""

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The trained parameters in groups with settings of their own, as torch's optimizers take them."""
        return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside weights and optimizer."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:  # noqa: B027  (most methods have nothing to take up)
        """Take up a checkpoint's state; an empty one begins anew."""


class Classification(Method):
    """A way to train a classifier: images with pixels in [0, 1], and one class label an image."""

    def check(self, model: nn.Module, x: Tensor, y: Tensor, run: Run) -> None:
        """Require images, labels of the model's classes, and a model that has classes."""
        check_has_classes(model)
        check_images(x)
        check_labels(y, len(x), run.n_classes)
        check_same_device(model, x)
