"""Robust transfer: what a robust model has learned, carried over to another task on clean images alone.

Shafahi, Saadatpanah, Zhu, Ghiasi et al. (ICLR 2020) find that robustness sits in the features. Three routes keep it
without a single adversarial example: a linear head on frozen features (``linear_head``), retraining the last blocks
(``retrain_last``), and fine-tuning everything while the features are held near the robust ones (``distill``). The route
they are compared with needs nothing new, since ``train`` goes on from any weights::

    model = anatomy.replace_head(robust, n_classes, seed=0)
    train(model, few_images, PGD(eps), updates=500, lr=0.01)  # or Free(eps)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.asking import device_of, plain
from thesis_kit.casting import autocast
from thesis_kit.checks import check_count, check_labels, check_same_device
from thesis_kit.data.forms import Labelled, gathered, in_memory
from thesis_kit.data.parts import Part
from thesis_kit.models import anatomy
from thesis_kit.models.fresh import draw_anew, fixed_parameters
from thesis_kit.randomness import mix_seed
from thesis_kit.training.loop import TrainingReport, train
from thesis_kit.training.minibatches import Data, stored
from thesis_kit.training.modes import as_found


def few(part: Labelled, per_class: int, *, seed: int) -> Part:
    """Return ``per_class`` images of every class, drawn at random, in the order of ``part``.

    With the same seed, fewer images are a subset of more.

    Args:
        part: images in any form that ``evaluation.accuracy`` takes, with labels 0, 1, …, up to the largest one that
            occurs.
        per_class: how many images a class.
        seed: decides which.

    Raises:
        ValueError: a class has fewer images; it is named.

    Examples:
        >>> len(tk.training.few(tk.data.digits(seed=0).train, 5, seed=0))
        50
    """
    held = in_memory(part)
    part = gathered(part) if held is None else held
    check_count(per_class, what="per_class")
    check_count(len(part), what="the number of images to draw from")
    counts = torch.bincount(part.y).tolist()
    lacking = [f"class {label} has {count}" for label, count in enumerate(counts) if count < per_class]
    if lacking:
        raise ValueError(f"{per_class} images a class were asked for, but {', '.join(lacking)}: ask for fewer")
    chosen = []
    for label in range(len(counts)):
        order = torch.randperm(counts[label], generator=torch.Generator().manual_seed(mix_seed(seed, label)))
        places = (part.y == label).nonzero().flatten()
        chosen.append(places[order[:per_class].to(places.device)])
    return part[torch.cat(chosen).sort().values]


def check_target(model: nn.Module, data: Labelled, n_classes: int) -> Part:
    """All images as one part; they must have labels of ``n_classes`` classes, an image of each, and the model's device.
    """
    held = in_memory(data)
    if held is not None:
        check_same_device(model, held.x)
    data = gathered(data, device_of(model))
    check_count(n_classes, what="n_classes", least=2)
    check_same_device(model, data.x)
    check_labels(data.y, len(data), n_classes)
    missing = sorted(set(range(n_classes)) - set(data.y.tolist()))
    if missing:
        raise ValueError(
            f"no image has the label {', '.join(map(str, missing))}, for n_classes={n_classes}: take images of every "
            "class (training.few does) or count the classes again"
        )
    return data


@torch.no_grad()
def source_features(
    model: nn.Module, data: Part, *, precision: str = "float32", batch_size: int = 256
) -> Float[Tensor, "n d"]:
    """The model's penultimate features of all images, in evaluation mode and in the pixels' dtype."""
    with as_found(model), autocast(precision, data.x.device):
        model.eval()
        batches = (data.x[start : start + batch_size] for start in range(0, len(data), batch_size))
        return torch.cat([anatomy.features(model, plain(x)).to(data.x.dtype) for x in batches])


def retrain_last(
    model: nn.Module, data: Data, k: int, *, n_classes: int, updates: int, seed: int = 0, **knobs: object
) -> tuple[nn.Module, TrainingReport]:
    """Return a copy of the model whose head and last ``k`` blocks were drawn anew and trained on clean images.

    What lies before them keeps its weights and its normalization's statistics, bit for bit.

    Args:
        model: the source, left as it is; of a kind that ``models.anatomy`` knows.
        data: images of the new task, in any form that ``train`` takes.
        k: blocks to retrain: 0 is the head alone, the number of ``anatomy.blocks(model)`` is everything.
        n_classes: classes of the new task.
        updates, knobs: as for ``train``.
        seed: of the new weights, and of training.

    Raises:
        ValueError: k, labels or classes that cannot be meant, images on another device, or a layer among the last k
            blocks that cannot be drawn anew.

    Source: Shafahi et al. 2020, the experiment of robustness against the number of retrained blocks.

    Examples:
        >>> few = tk.training.few(tk.data.digits().train, 2, seed=0)
        >>> network, report = tk.training.retrain_last(model, few, k=1, n_classes=10, updates=2, progress=False)
        >>> report.updates
        2
    """
    data = stored(data)
    if isinstance(data, Part):
        check_target(model, data, n_classes)
    new = anatomy.replace_head(model, n_classes, seed=seed)
    before, behind = anatomy.split(new, k)
    for module in behind:
        if fixed := fixed_parameters(module):
            raise ValueError(
                f"{type(module).__name__} cannot be drawn anew, for {', '.join(fixed)} have no reset_parameters: "
                "choose a smaller k"
            )
    draw_anew(behind, seed)
    return new, train(new, data, updates=updates, frozen=before, seed=seed, **knobs)
