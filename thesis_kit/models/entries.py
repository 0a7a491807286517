"""What is known about each member of the zoo: a sealed JSON file a member, read here and written by ``zookeeping``.

A file says how the member was trained or which package brings it, how well it does, and what its weights hash to. It
carries the SHA-256 of its own content, so that a number edited by hand is refused under the member's name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from thesis_kit.checks import UnknownName, choose
from thesis_kit.files import DamagedFile, digest, parse_json, settle
from thesis_kit.models.vocabularies import VOCABULARIES

FOLDER = Path(__file__).resolve().parent / "weights"
COHORTS = "cohorts"  # subfolder of weights that the wheel leaves out: of other seeds, and of members not shipped
SCHEMA = 2
_UNSAID = {"package", "siblings"}  # where a member has none


class MissingWeights(ValueError):
    """A member's weights file is not there; the sentence says which command makes it."""


@dataclass(frozen=True)
class Score:
    """A share of test items with its 95% interval: ``value``, ``low``, ``high`` in 0 … 1, ``n`` items, and of what."""

    value: float
    low: float
    high: float
    n: int
    what: str


@dataclass(frozen=True)
class Package:
    """The package that brings a member's weights, from a registry of packages.

    ``distribution`` and ``version`` are the registry's, ``licence`` and ``source`` the authors'; ``extra`` of
    thesis_kit installs it; where it asks for packages that nobody here needs there is none, and it is installed alone.
    ``reader`` says how the file is read (``reading.READERS``). ``answer`` holds a few outputs for an input that is
    computed (``packaged.probe``): what the network must say before it is handed out.
    """

    distribution: str
    version: str
    licence: str
    source: str
    extra: str
    reader: str
    answer: dict[str, Any]

    @property
    def install(self) -> str:
        """What installs it, as a person types it."""
        if self.extra:
            return f'pip install ".[{self.extra}]"'
        return f"pip install --no-deps {self.distribution}=={self.version}"


@dataclass(frozen=True)
class Sibling:
    """Another network of a member's recipe, trained from another seed: what differs from the member's own entry."""

    file: str
    sha256: str
    bytes: int
    scores: dict[str, Score]
    training: dict[str, Any]
    measured: dict[str, Any]
    code: dict[str, str]
    precision: str | None = None  # of its training passes, where it was another one


@dataclass(frozen=True)
class Entry:
    """What is known about one member.

    ``kind`` is a name of ``kinds.KINDS``, ``title`` one line of what it is, ``input_shape`` that of one input without
    its batch, such as (c, h, w). ``recipe`` holds every setting of its training and ``data_hashes`` the SHA-256 of each
    data set it saw. ``classes`` are the names of its outputs, or the name of a vocabulary that a package keeps.
    ``scores`` were measured on the stored weights (``dtype`` says how they are stored), ``measured`` when and where.
    ``training`` has passes, seconds and the SHA-256 of the weights it started from, if any; ``code`` the version that
    made it. ``file`` lies in the weights folder, or in ``package`` where one brings it, and holds ``bytes`` bytes.
    Where a member stands for a cohort, several networks of one recipe, it is that of seed 0 and ``siblings`` has the
    others by their seed.
    """

    name: str
    title: str
    recipe: dict[str, Any]
    classes: tuple[str, ...] | str
    input_shape: tuple[int, ...]
    data_hashes: dict[str, str]
    file: str
    sha256: str
    bytes: int
    dtype: str
    scores: dict[str, Score]
    training: dict[str, Any]
    measured: dict[str, Any]
    code: dict[str, str]
    kind: str = "classifier"
    package: Package | None = None
    siblings: dict[str, Sibling] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """Name of the architecture, as ``models.build`` takes it."""
        return self.recipe["architecture"]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the architecture, such as its width."""
        return self.recipe["options"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order; a vocabulary is looked up in the package that keeps it."""
        return VOCABULARIES[self.classes].words() if isinstance(self.classes, str) else self.classes

    @property
    def n_classes(self) -> int:
        """Number of outputs that have a name."""
        return VOCABULARIES[self.classes].count if isinstance(self.classes, str) else len(self.classes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(c, h, w) of an image, for members that take images."""
        return self.input_shape

    @property
    def data(self) -> str:
        """Name of the distribution it was trained and tested on."""
        return self.recipe["data"]

    @property
    def shipped(self) -> bool:
        """Whether its weights come with thesis_kit itself; others are made, or brought by a package."""
        return self.package is None and not self.file.startswith(f"{COHORTS}/")


def names(*, folder: str | os.PathLike | None = None) -> list[str]:
    """Return the names of all members, in alphabetical order.

    Args:
        folder: where entries and weights lie; the package's own folder unless given.
    """
    return sorted(path.stem for path in Path(folder or FOLDER).glob("*.json") if path.suffixes[-2:-1] != [".scores"])


def entry(name: str, *, seed: int | None = None, folder: str | os.PathLike | None = None) -> Entry:
    """Return what is known about one member.

    Args:
        name: the member. seed: of a cohort, the network of this seed; the member itself unless given.
        folder: as for ``names``.

    Raises:
        UnknownName: there is no such member; near names are offered.
        DamagedFile: its entry is not what was written.
        MissingWeights: nobody has entered a network of that seed; the sentence says which there are.
    """
    about = _read(name, folder)
    return about if seed is None or seed == about.recipe.get("seed", 0) else of_seed(about, seed)


def of_seed(about: Entry, seed: int) -> Entry:
    """What is known about a cohort's network of another seed than the member's own.

    Raises:
        MissingWeights: as ``entry``.
    """
    if about.package is not None:
        raise MissingWeights(f"{about.name} is one network that others trained: leave out seed")
    if str(seed) not in about.siblings:
        first = about.recipe["seed"]
        has = f"those there are have seeds {', '.join([str(first), *about.siblings])}: name one of them"
        has = has if about.siblings else f"only that of seed {first}: leave out seed"
        raise MissingWeights(f"{about.name} has no network of seed {seed}, {has}")
    own = about.siblings[str(seed)]
    told = {one.name: getattr(own, one.name) for one in fields(Sibling) if one.name != "precision"}
    recipe = {**about.recipe, "seed": seed, "precision": own.precision or about.recipe["precision"]}
    return replace(about, recipe=recipe, siblings={}, **told)


def _read(name: str, folder: str | os.PathLike | None) -> Entry:
    settle(path_of(name, folder))  # weights that belong to it may wait for a rename
    known = names(folder=folder)
    if not known:
        raise UnknownName(
            f"unknown zoo model {name!r}: the zoo has no members yet; `thesis-kit zoo list` names those that can be "
            "trained"
        )
    record = _record(path_of(choose(name, known, "zoo model"), folder))
    told = {one.name: record[one.name] for one in fields(Entry) if one.name in record}
    told["classes"] = told["classes"] if isinstance(told["classes"], str) else tuple(told["classes"])
    told["input_shape"], told["scores"] = tuple(told["input_shape"]), _scores(told["scores"])
    if "package" in told:
        told["package"] = Package(**told["package"])
    if "siblings" in told:
        told["siblings"] = {
            seed: Sibling(**{**one, "scores": _scores(one["scores"])}) for seed, one in told["siblings"].items()
        }
    return Entry(**told)


def _scores(record: Mapping[str, Any]) -> dict[str, Score]:
    return {what: Score(**score) for what, score in record.items()}


def path_of(name: str, folder: str | os.PathLike | None = None) -> Path:
    """Where the entry of a member lies."""
    return Path(folder or FOLDER) / f"{name}.json"


def written(about: Entry) -> bytes:
    """The entry as its file holds it: with the version of the format, and sealed."""
    told = {key: value for key, value in asdict(about).items() if value or key not in _UNSAID}
    for one in told.get("siblings", {}).values():
        if one["precision"] is None:
            del one["precision"]
    record = json.loads(json.dumps({"schema": SCHEMA, **told}, allow_nan=False))
    return (json.dumps(sealed(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the SHA-256 of its content as ``seal``."""
    content = {key: value for key, value in record.items() if key != "seal"}
    return {**content, "seal": digest(content)}


def command(name: str, seed: int | None = None) -> str:
    """What makes a member again, or its network of another seed, as a person types it."""
    return f"`make zoo NAME={name}`" if seed is None else f"`thesis-kit zoo train {name} --seed {seed} --package`"


def _record(path: Path) -> dict[str, Any]:
    """The entry as it stands in its file.

    Raises:
        DamagedFile: the file is no entry, one of another version of the format, or was altered.
    """
    name = path.stem
    try:
        record = parse_json(path.read_bytes(), path.name)
        schema, same = record["schema"], record["name"] == name and "seal" in record
        if not same:
            raise ValueError("it has another name than its file, or no seal")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedFile(f"cannot look up {name}: {path} is cut short or no entry ({error}); restore it") from error
    if schema != SCHEMA:
        raise DamagedFile(
            f"cannot look up {name}: {path.name} has format {schema}, this thesis_kit reads format {SCHEMA}; restore it"
        )
    known, said = {one.name for one in fields(Entry)}, record.keys() - {"schema", "seal"}
    if sealed(record) != record or not known - _UNSAID <= said <= known:
        raise DamagedFile(
            f"the entry of {name} was altered after it was written, its seal does not fit: restore {path.name}, or "
            f"make the model again with {command(name)}"
        )
    return record
