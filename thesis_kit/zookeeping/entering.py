"""Enter a network that an installed package brings: what it is, what its file hashes to, and how it answers.

What is entered here is what ``zoo.load`` later holds the package's file against.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date

import torch

from thesis_kit.checks import choose
from thesis_kit.files import write_atomic
from thesis_kit.ledger.provenance import machine
from thesis_kit.models import entries, packaged, zoo
from thesis_kit.models.entries import Entry, Package
from thesis_kit.models.kinds import KINDS

_OUTPUTS, _TOLERANCE = 10, 0.01  # how many are kept, and how far they may be off on another machine


def enter(
    name: str, *, title: str, kind: str, recipe: dict, classes: tuple[str, ...] | str, input_shape: tuple[int, ...],
    file: str, sha256: str, dtype: str, package: Package, probe: tuple[int, ...] | None = None,
    folder: str | os.PathLike | None = None,
) -> Entry:  # fmt: skip
    """Load a package's network, let it answer the computed input, and write its entry.

    Args:
        name: of the member. title, kind, recipe, classes, input_shape, file, dtype: as ``Entry`` has them; the recipe
            needs "architecture", "options" and "data".
        sha256: of the file, from its authors or as it was first seen; another one is refused.
        package: what brings it; its ``answer`` is left empty.
        probe: shape of the computed input; ``input_shape`` unless given.
        folder: where entries lie; the package's own folder unless given.

    Returns:
        The entry.

    Raises:
        MissingPackage, DamagedFile, UnfitWeights: as ``zoo.load``.
    """
    made = {"date": date.today().isoformat(), "machine": machine("cpu", torch.get_num_threads())}
    about = Entry(
        name=name, title=title, recipe=recipe, classes=classes, input_shape=input_shape, data_hashes={}, file=file,
        sha256=sha256, bytes=0, dtype=dtype, scores={}, training={}, measured=made, code={}, kind=kind, package=package,
    )  # fmt: skip
    what = choose(kind, KINDS, "kind of member")
    data = packaged.weights_of(about)
    network = zoo.with_weights(what.build(about, 0), data, name, reader=package.reader)
    shape = tuple(probe or input_shape)
    told = what.answer(network, shape)
    places = torch.linspace(0, len(told) - 1, min(_OUTPUTS, len(told))).round().long().tolist()
    answer = {"shape": list(shape), "outputs": places, "values": [round(told[i].item(), 4) for i in places],
              "tolerance": _TOLERANCE}  # fmt: skip
    about = replace(about, bytes=len(data), package=replace(package, answer=answer))
    write_atomic(entries.path_of(name, folder or zoo.FOLDER), entries.written(about))
    return about
