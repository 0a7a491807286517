"""A network like another, trained in the ordinary way: what examples are made on to be transferred."""

from __future__ import annotations

from torch import nn

from thesis_kit.models.copying import copied
from thesis_kit.models.fresh import draw_anew, fixed_parameters
from thesis_kit.training.loop import train
from thesis_kit.training.minibatches import Data


def natural_twin(
    model: nn.Module, data: Data, *, updates: int = 1000, lr: float = 0.1, batch_size: int = 128, seed: int = 1,
    progress: bool | None = None,
) -> nn.Module:  # fmt: skip
    """A copy of ``model`` with new weights, trained on ``data`` by ordinary training; in evaluation mode.

    Args:
        model: whose architecture is copied; left as it is. Every module with weights of its own must have
            ``reset_parameters``, as torch's have.
        data, updates, lr, batch_size, progress: as in ``train``.
        seed: of the new weights and of training.

    Raises:
        ValueError: a module cannot be given new weights; it is named. The model cannot be copied.

    Examples:
        >>> twin = tk.training.natural_twin(model, digits, updates=2, progress=False)
        >>> twin(digits.x).shape
        torch.Size([4, 10])
    """
    if next(model.parameters(), None) is None:
        raise ValueError(f"{type(model).__name__} has no weights, so that a twin has nothing new to learn")
    twin = copied(model)
    stuck = [name or "the model itself" for name, module in twin.named_modules() if fixed_parameters(module)]
    if stuck:
        raise ValueError(
            f"these modules cannot be given new weights: {', '.join(stuck[:3])}; build a second network yourself and "
            "train it with training.train"
        )
    draw_anew(twin.modules(), seed)
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    train(twin, data, updates=updates, lr=lr, batch_size=batch_size, seed=seed, progress=progress)
    return twin.eval()
