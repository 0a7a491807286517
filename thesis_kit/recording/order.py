"""Whether what stands at a site lies row by row as it does in the image, which no structure tells.

Most transformers keep their patches in the order of reading. Some unroll them, so that a pooling takes neighbors that
lie side by side (Hiera), or hold them block by block (NesT, MobileViTv2): such tokens have the right number and the
wrong places. So a network is shown an image and the same with one patch changed, and one looks where it is noticed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thesis_kit.asking import Model, as_module
from thesis_kit.recording.batches import Run, record
from thesis_kit.recording.listing import found_in
from thesis_kit.recording.sites import Site, spread
from thesis_kit.recording.structure import convolves, parent_of
from thesis_kit.recording.watching import seated, size_seen

_PLACES = ((0.3, 0.7), (0.7, 0.3), (0.25, 0.5), (0.5, 0.75), (0.75, 0.6))  # rows and columns, as shares of the sides
_NEAR = 0.1  # of a side, or one patch, as far as an overlapping stem moves what is noticed


def laid_out(seen: Tensor, model: Model, x: Tensor, place: Site | None, *, run: Run | None = None) -> Tensor:
    """Units before positions (n, u, …) as maps where these lie as in the image, else in a row (n, u, t).

    Args:
        seen: of ``spread``. model, run: as for ``record``. x: the images. place: where it was seen; None of layers.
    """
    if seen.ndim != 4 or x.ndim != 4 or place is None:
        return seen
    (rows, columns), (height, width) = seen.shape[2:], size_seen(as_module(model), x) or x.shape[2:]
    proportionate = abs(rows * width - columns * height) <= max(height, width)
    if proportionate and (place.form == "maps" or _convolved(model, place)):
        return seen  # convolutions need the order, and blur where a change is noticed
    return seen if _lies_as_seen(model, x, place, run) else seen.flatten(2)


def _convolved(model: Model, place: Site) -> bool:
    """Whether the block that the site is of works on maps."""
    return bool(place.block) and convolves(found_in(as_module(model)).modules[place.block])


def _lies_as_seen(model: Model, x: Tensor, place: Site, run: Run | None) -> bool:
    """Whether what is changed in one patch is noticed there, for most of five patches."""
    first = _first_of_its_stage(model, place)
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(x.shape[1:], generator=generator).to(x)
    rows, columns = _lying(model, one[None], first, run).shape[2:]
    chosen = [(int(down * rows), int(across * columns)) for down, across in _PLACES]
    changed = torch.stack([one, *(_with_patch(one, *at, rows, columns) for at in chosen)])
    seen = _lying(model, changed, first, run)
    noticed = (seen[1:] - seen[:1]).double().square().sum(dim=1)  # (5, rows, columns)
    if not noticed.any():
        return True
    share = noticed / noticed.sum(dim=(1, 2), keepdim=True).clamp_min(1e-300)
    middles = [share.sum(dim=3 - axis) @ torch.arange(share.shape[axis]).to(share) for axis in (1, 2)]
    far = (torch.stack(middles, dim=1) - torch.tensor(chosen).to(share)).abs()
    near = torch.tensor([rows, columns]).mul(_NEAR).clamp_min(1.0).to(share)
    return (2 * (far <= near).all(dim=1).sum() > len(far)).item()


def _first_of_its_stage(model: Model, place: Site) -> Site:
    """Where the tokens come in that the site's block works on; there nothing has mixed them yet."""
    stage = parent_of(place.block or place.module)
    tokens = (site for site in found_in(as_module(model)).values() if site.kind == "tokens")
    return next((site for site in tokens if parent_of(site.module) == stage), place)


def _lying(model: Model, x: Tensor, site: Site, run: Run | None) -> Tensor:
    """What stands at a site as maps (n, u, rows, columns)."""
    value = record(model, x, site, run=run)[site.name]
    found = spread(value, seated(site, value, size_seen(as_module(model), x)))
    return found if found.ndim == 4 else found[:, :, None]


def _with_patch(one: Tensor, row: int, column: int, rows: int, columns: int) -> Tensor:
    """An image whose patch in a row and column is turned to its negative."""
    changed, (height, width) = one.clone(), one.shape[1:]
    down = slice(row * height // rows, max((row + 1) * height // rows, row * height // rows + 1))
    across = slice(column * width // columns, max((column + 1) * width // columns, column * width // columns + 1))
    changed[:, down, across] = 1 - changed[:, down, across]
    return changed

