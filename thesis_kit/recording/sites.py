"""Named places in a network, with what stands there and in which order: the residual stream, hidden units, q, k, v, …

``sites(model)`` finds them in networks as they come, by structure, so that one scheme of
names serves timm's and torchvision's transformers and convolutional networks, open_clip's towers, torchaudio's
encoders, Whisper-like ones and the book's own. Hidden units are the input of a perceptron's second layer, which is
right for GLU and for activations that are functions; q, k and v are as they meet, after their norms and rotations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from thesis_kit.checks import choose

ATTENDED = ("q", "k", "v", "attention_map")
_WHAT = {
    "tokens": "what the first block is given",
    "residual": "the residual stream behind the block",
    "hidden": "hidden units of the MLP: the input of its second layer",
    "maps": "hidden maps of the block: the input of its last convolution",
    "q": "queries by head, as they meet the keys",
    "k": "keys by head, as they meet the queries",
    "v": "values by head",
    "attention_map": "attention map by head; each row adds up to 1",
    "attention_out": "what the attention gives, as it is added to the stream",
    "mlp_out": "what the MLP gives, as it is added to the stream",
    "block": "what the block gives",
    "layer": "what the layer gives",
    "penultimate": "what the classifier is given",
}
_LATER = "before the block scales and adds it"
_NUMBER = re.compile(r"(\d+)(?=\D*$)")


@dataclass(frozen=True)
class Site:
    """A place in a network.

    What is recorded there has the inputs first and is arranged as ``form`` says: "tokens" (n, t, d), "maps" (n, c, …)
    with the channels second, "heads" (n, heads, t, d) or "attention" (n, heads, t, t); tokens that lie as a map in the
    network, as in Swin Transformers, come as maps (n, d, h, w).

    ``name``, ``kind`` and ``what`` are for people; ``module`` is the module that is listened to, at its "output", its
    "input", or at one of "q", "k", "v", "attention_map" (``at``). ``prefix`` tokens, class tokens and registers, stand
    before the patches, which form a ``grid`` where their rows and columns are known, and are of ``stride`` pixels each;
    where sites were listed with images, or a recording is under way, prefix and grid are those of these images. A site
    of tokens that are no patches is not ``seated``. ``shape`` is known, and how often a pass comes by (``calls``, 0 for
    never), where sites were listed with an input. A ``refusal`` says why a place that has a name cannot be recorded.
    What a block multiplies with a parameter of its own before it adds it is ``scaled`` later.
    """

    name: str
    kind: str
    module: str
    at: str
    form: str
    width: int | None = None
    heads: int | None = None
    prefix: int = 0
    grid: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    seated: bool = False
    scaled: bool = False
    batch_first: bool = True
    channels_last: bool = False
    block: str = ""
    shape: tuple[int, ...] | None = None
    calls: int | None = None
    refusal: str = ""

    @property
    def what(self) -> str:
        """What stands there, in words."""
        said = _WHAT["maps" if self.kind == "hidden" and self.form == "maps" else self.kind]
        return said.replace("as it is added to the stream", _LATER) if self.scaled else said

    @property
    def shape_text(self) -> str:
        """The shape that is recorded, with n inputs, t tokens and what else is not known as a letter."""
        if self.shape is not None:
            return f"(n, {', '.join(map(str, self.shape[1:]))})"
        width, heads = self.width or "d", self.heads or "heads"
        return {
            "tokens": f"(n, t, {width})", "maps": f"(n, {width if self.width else 'c'}, …)",
            "vectors": f"(n, {width})", "heads": f"(n, {heads}, t, d)", "attention": f"(n, {heads}, t, t)",
        }[self.form]  # fmt: skip

    def placed(self, count: int, size: tuple[int, int] | None) -> Site:
        """The site with the prefix and the grid that ``count`` tokens have of an image of ``size``; None is unknown."""
        if not self.seated:
            return self
        prefix, grid = _seats(count, self.prefix, self.grid, self.stride, size)
        return replace(self, prefix=prefix, grid=grid)

    def patches(self, values: Tensor) -> Tensor:
        """Of what was recorded here, without the class tokens and registers: (n, t − prefix, d), by head likewise."""
        self._check_tokens(values)
        axis = 1 if self.form == "tokens" else 2
        return values.narrow(axis, self.prefix, values.shape[axis] - self.prefix)

    def maps(self, values: Tensor) -> Tensor:
        """Of what was recorded here, the patches as maps (n, d, rows, columns).

        Raises:
            ValueError: they form no grid that is known.
        """
        if values.ndim == 4 and self.form in ("tokens", "maps"):
            return values
        patches = self.patches(values)
        if self.form != "tokens":
            raise ValueError(f"{self.name} is by head: take the values of a head first, or the site of the stream")
        count, grid = patches.shape[1], self.grid or (0, 0)
        if grid[0] * grid[1] != count or count == 0:
            known = f"{grid[0]} × {grid[1]} are known of" if self.grid else "no rows and columns are known of"
            raise ValueError(
                f"{self.name} holds {count} patches, and {known} them: take the site from recording.sites(model, x) "
                "with images of this size, or reshape site.patches(values) yourself"
            )
        return patches.transpose(1, 2).unflatten(2, grid)

    def _check_tokens(self, values: Tensor) -> None:
        if self.form not in ("tokens", "heads") or (self.form == "tokens" and values.ndim != 3):
            raise ValueError(f"{self.name} holds no tokens in a row but {self.form} of shape {tuple(values.shape)}")


_MANY = 8  # class tokens and registers, at most, that nobody told of


def _seats(
    count: int, prefix: int, grid: tuple[int, int] | None, stride: tuple[int, int] | None, size: tuple[int, int] | None
) -> tuple[int, tuple[int, int] | None]:
    """How many tokens stand before the patches, and the patches' rows and columns, None where they cannot be told.

    The network says what it expects (prefix, grid, stride). Some tokens join only in late blocks, others are called
    what nobody knows, and images come in sizes of their own: whichever makes the count come out is right.
    """
    if 0 < count <= prefix:
        return count, None  # class tokens alone
    grids = _grids(grid, stride, size)
    for before in dict.fromkeys((prefix, 0)):
        for rows, columns in grids:
            if rows * columns == count - before:
                return before, (rows, columns)
    for before in dict.fromkeys((prefix, 0, *range(1, _MANY + 1))) if size else ():
        found = _alike(count - before, size)
        if found and (before in (prefix, 0) or count - before > max(before, 3)):
            return before, found
    return prefix, None


def _grids(
    grid: tuple[int, int] | None, stride: tuple[int, int] | None, size: tuple[int, int] | None
) -> list[tuple[int, int]]:
    """Grids that an image may have: the network's own where it takes one size alone, else as many patches as fit, or
    one more where it is padded; in later stages half."""
    if size and stride and not grid:
        found = [
            tuple(side // step for side, step in zip(size, stride, strict=True)),
            tuple(-(-side // step) for side, step in zip(size, stride, strict=True)),
        ]
    else:
        found = [grid] if grid else []
    halves = []
    for rows, columns in dict.fromkeys(found):
        while rows and columns:
            halves.append((rows, columns))
            whole = rows % 2 == columns % 2 == 0
            rows, columns = (rows // 2, columns // 2) if whole else (0, 0)
    return sorted(halves, key=lambda one: -one[0] * one[1])


def _alike(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """The grid of so many patches whose sides are as those of the image; None if there is none."""
    height, width = size
    rows = round((max(count, 0) * height / width) ** 0.5)
    fits = rows > 0 and count % rows == 0 and rows * width == (count // rows) * height
    return (rows, count // rows) if fits else None


def spread(value: Tensor, site: Site | None) -> Tensor:
    """Units before positions, (n, u, …), without class tokens and registers, as maps where the patches form a grid.

    ``value`` is what ``record`` gives of a site, with its prefix and grid there; None for the site stands for a layer
    by its name.
    """
    if value.ndim == 2:
        return value[:, :, None]
    form = site.form if site is not None else ("tokens" if value.ndim == 3 else "maps")
    if form == "tokens" and value.ndim == 3:
        if site is None:
            return value.transpose(1, 2)
        return _on_grid(site.patches(value).transpose(1, 2), site)
    if form == "heads":
        return _on_grid(site.patches(value).transpose(2, 3).flatten(1, 2), site)  # from (n, heads · d, t)
    return value


def _on_grid(values: Tensor, site: Site) -> Tensor:
    """(n, u, t) as (n, u, rows, columns) where the patches' rows and columns are known."""
    if values.shape[2] == 0:
        raise ValueError(f"{site.name} holds class tokens and no patches: pool it by “class”")
    rows, columns = site.grid or (0, 0)
    return values.unflatten(2, (rows, columns)) if rows * columns == values.shape[2] else values


class Sites(Mapping[str, Site]):
    """The sites of a network by name, in the order of depth; ``print`` shows them as a table."""

    def __init__(self, found: Iterable[Site], network: nn.Module, modules: Mapping[str, nn.Module]):
        found = list(found)
        self.network, self.modules = network, modules
        taken = {site.name for site in found if site.kind != "layer"} & set(modules)
        found = [replace(s, name=f"{s.name}.site") if s.name in taken else s for s in found]
        self.refused = {site.name: site for site in found if site.refusal}
        self._found = {site.name: site for site in found if not site.refusal}

    def __getitem__(self, name: str) -> Site:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def of_kind(self, kind: str) -> list[Site]:
        """Those of one kind, such as "hidden", in the order of depth.

        Raises:
            UnknownName: the network has none of the kind.
        """
        choose(kind, dict.fromkeys(site.kind for site in self.values()), "kind of site")
        return [site for site in self.values() if site.kind == kind]

    def __str__(self) -> str:
        rows = [("name", "kind", "shape", "what it is"), *_collapsed(list(self.values()))]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(t.ljust(w) for t, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows]
        notes = ["", "Besides, every layer of model.named_modules() by its name, and its input as “input of” it."]
        notes += sorted({site.refusal for site in self.refused.values()})
        return "\n".join([f"sites of {type(self.network).__name__}", *lines, *notes])

    __repr__ = __str__


def _collapsed(found: list[Site]) -> list[tuple[str, str, str, str]]:
    """Rows for people: sites that differ by the number of their block alone share one."""
    rows: dict[tuple, list[str]] = {}
    for site in found:
        often = {None: "", 0: "; not reached by this input", 1: ""}.get(site.calls, f"; {site.calls} times in a pass")
        number = _NUMBER.search(site.block)
        start, end = number.span() if number else (0, 0)
        tail = site.block[end:] + site.name[len(site.block) :]
        key = (site.block[:start], tail, site.kind, site.shape_text, site.what + often)
        rows.setdefault(key if number else (site.name, "", *key[2:]), []).append(number[0] if number else "")
    return [
        (f"{head}{_range(numbers)}{tail}", kind, shape, what)
        for (head, tail, kind, shape, what), numbers in rows.items()
    ]


def _range(numbers: list[str]) -> str:
    if len(numbers) == 1:
        return numbers[0]
    whole = [int(number) for number in numbers]
    if whole == list(range(whole[0], whole[0] + len(whole))):
        return f"{{{whole[0]}…{whole[-1]}}}"
    return "{" + ",".join(numbers) + "}"
