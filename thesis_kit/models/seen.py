"""What can be seen of a network before it is asked: whether it ends in features, and whether it normalizes by itself.

Both are mistakes that give numbers and no error: features are taken for logits, pixels are normalized twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

_CLASSIFIERS = ("fc", "classifier", "head", "heads")  # names of the last layers of torchvision's models


def check_has_classes(model: nn.Module) -> None:
    """Refuse a network that is known to end in features, for want of a classifier.

    It can be told of timm's models (``num_classes`` is 0, or ``get_classifier()`` does nothing) and of torchvision's,
    alone, wrapped, or at the end of an ``nn.Sequential``.

    Raises:
        ValueError: the network has no classifier.
    """
    last, classifier = _last_network(model), None
    if hasattr(last, "get_classifier") and hasattr(last, "num_classes"):  # timm's
        classifier = nn.Identity() if last.num_classes == 0 else last.get_classifier()
    elif type(last).__module__.startswith("torchvision.models"):
        classifier = next((part for name, part in last.named_children() if name in _CLASSIFIERS), None)
    if isinstance(classifier, nn.Identity):
        raise ValueError(
            f"{type(last).__name__} has no classifier, so that its outputs are features and not logits: make it with "
            "a number of classes (n_classes in tk.build, num_classes in timm.create_model), or put a head behind it"
        )


def check_normalizes_once(network: nn.Module) -> None:
    """Refuse a network that begins with a normalization by mean and std, where it would get a second one.

    Such a layer is torchvision's ``Normalize``, a ``Classifier`` with a mean, or a layer of someone's own that has
    "normaliz" in its name, a mean and a std; before it there may be others without weights, as one that resizes.

    Raises:
        ValueError: the network normalizes by itself.
    """
    for layer in _first_layers(network):
        named_so = "normaliz" in type(layer).__name__.lower() and hasattr(layer, "mean") and hasattr(layer, "std")
        if named_so or (_is_classifier(layer) and layer.normalizes):
            raise ValueError(
                f"the network begins with {type(layer).__name__}, so that images would be normalized twice: leave out "
                "mean and std here, or that layer there"
            )


def _first_layers(network: nn.Module) -> Iterator[nn.Module]:
    """What images go through first, up to the first layer with weights."""
    inner = inside(network)
    yield network
    if inner is not None:
        yield from _first_layers(inner)
    elif isinstance(network, nn.Sequential):
        for child in network:
            yield from _first_layers(child)
            if next(child.parameters(), None) is not None:
                return


def _last_network(model: nn.Module) -> nn.Module:
    """What gives the outputs."""
    while (inner := model[-1] if isinstance(model, nn.Sequential) and len(model) else inside(model)) is not None:
        model = inner
    return model


def inside(model: nn.Module) -> nn.Module | None:
    """What a ``Classifier``, a compiled model or a ``DataParallel`` is wrapped around; None for others."""
    if isinstance(model, nn.DataParallel):
        return model.module
    if isinstance(compiled := vars(model).get("_modules", {}).get("_orig_mod"), nn.Module):
        return compiled
    return model.network if _is_classifier(model) else None


def _is_classifier(model: nn.Module) -> bool:
    """Whether it is a ``Classifier``, whose file imports this one."""
    return isinstance(vars(model).get("normalizes"), bool) and hasattr(model, "network")
