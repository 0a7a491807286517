"""The silhouettes: one signed distance function a shape, negative inside, positive outside.

A shape fills the unit disk, with x to the right and y up. Curves are arcs of circles and edges are half-planes, joined
by minimum (union) and maximum (intersection). The result is the exact distance near the outline, away from corners;
that is where it decides how much of a pixel is covered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce

import torch
from torch import Tensor

from thesis_kit.data.scenes.vocabulary import SHAPES

Distance = Callable[[Tensor, Tensor], Tensor]
Point = tuple[float, float]


def _circle(x: Tensor, y: Tensor, center: Point = (0.0, 0.0), radius: float = 1.0) -> Tensor:
    return torch.hypot(x - center[0], y - center[1]) - radius


def _half_plane(x: Tensor, y: Tensor, a: Point, b: Point) -> Tensor:
    """Signed distance to the line from a to b; negative to its left."""
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    right, up = (b[1] - a[1]) / length, (a[0] - b[0]) / length  # the line's unit normal
    return torch.add(x * right, y, alpha=up).sub_(a[0] * right + a[1] * up)


def _convex(x: Tensor, y: Tensor, *corners: Point) -> Tensor:
    """A convex polygon, its corners counter-clockwise: the largest of the signed distances to its edges."""
    edges = zip(corners, (*corners[1:], corners[0]), strict=True)
    return reduce(torch.maximum, (_half_plane(x, y, a, b) for a, b in edges))


def _box(x: Tensor, y: Tensor, center: Point, half_width: float, half_height: float) -> Tensor:
    return torch.maximum((x - center[0]).abs() - half_width, (y - center[1]).abs() - half_height)


def _contacts(apex: Point, center: Point, radius: float) -> tuple[Point, Point]:
    """Where the two tangents from a point touch a circle: the right one and the left one, as seen from the point."""
    dx, dy = center[0] - apex[0], center[1] - apex[1]
    far = math.hypot(dx, dy)
    tangent = math.sqrt(far * far - radius * radius)
    along, across = tangent * tangent / far, radius * tangent / far
    ux, uy = dx / far, dy / far
    middle = apex[0] + along * ux, apex[1] + along * uy
    return (middle[0] + across * uy, middle[1] - across * ux), (middle[0] - across * uy, middle[1] + across * ux)


def _union(*parts: Tensor) -> Tensor:
    return reduce(torch.minimum, parts)


def _fold(x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Turn every point by a multiple of 1/n of a full turn into the sector around the y axis."""
    radius, angle, sector = torch.hypot(x, y), torch.atan2(x, y), 2 * math.pi / n
    angle = angle - sector * torch.round(angle / sector)
    return radius * torch.sin(angle), radius * torch.cos(angle)


def disk(x: Tensor, y: Tensor) -> Tensor:
    """A disk."""
    return _circle(x, y, radius=0.86)


def star(x: Tensor, y: Tensor) -> Tensor:
    """A star with five points."""
    x, y = _fold(x, y, 5)
    dent = 0.45 * math.sin(math.pi / 5), 0.45 * math.cos(math.pi / 5)  # the corner between two points
    return _half_plane(x.abs(), y, dent, (0.0, 1.0))


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """A waxing moon, open to the left."""
    return torch.maximum(_circle(x, y, radius=0.92), -_circle(x, y, (-0.48, 0.16), 0.82))


def ring(x: Tensor, y: Tensor) -> Tensor:
    """A ring."""
    return _circle(x, y, radius=0.68).abs() - 0.22


def heart(x: Tensor, y: Tensor) -> Tensor:
    """A heart: two circles and the wedge below them."""
    apex, lobe, radius = (0.0, -0.92), (0.40, 0.30), 0.48
    (right_x, right_y), _ = _contacts(apex, lobe, radius)
    wedge = _convex(x, y, apex, (right_x, right_y), lobe, (-lobe[0], lobe[1]), (-right_x, right_y))
    return _union(_circle(x.abs(), y, lobe, radius), wedge)


def diamond(x: Tensor, y: Tensor) -> Tensor:
    """A tall rhombus."""
    return _convex(x, y, (0.0, -1.0), (0.62, 0.0), (0.0, 1.0), (-0.62, 0.0))


def spade(x: Tensor, y: Tensor) -> Tensor:
    """A heart on its head, on a foot."""
    return _union(heart(x / 0.86, (0.16 - y) / 0.86) * 0.86, _foot(x, y))


def club(x: Tensor, y: Tensor) -> Tensor:
    """Three disks on a foot."""
    leaves = _circle(x, y, (0.0, 0.50), 0.44), _circle(x.abs(), y, (0.46, -0.16), 0.44)
    return _union(*leaves, _circle(x, y, (0.0, 0.05), 0.20), _foot(x, y))


def _foot(x: Tensor, y: Tensor) -> Tensor:
    return _convex(x, y, (-0.34, -0.94), (0.34, -0.94), (0.08, 0.0), (-0.08, 0.0))


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """An equilateral triangle."""
    return _convex(x, y, (-0.87, -0.5), (0.87, -0.5), (0.0, 1.0))


def square(x: Tensor, y: Tensor) -> Tensor:
    """A square."""
    return _box(x, y, (0.0, 0.0), 0.70, 0.70)


def arrow(x: Tensor, y: Tensor) -> Tensor:
    """An arrow that points to the right."""
    head = _convex(x, y, (0.08, -0.66), (1.0, 0.0), (0.08, 0.66))
    return _union(head, _box(x, y, (-0.38, 0.0), 0.56, 0.25))


def cross(x: Tensor, y: Tensor) -> Tensor:
    """A cross with four equal arms."""
    x, y = x.abs(), y.abs()
    return _union(_box(x, y, (0.0, 0.0), 0.92, 0.29), _box(x, y, (0.0, 0.0), 0.29, 0.92))


def drop(x: Tensor, y: Tensor) -> Tensor:
    """A falling drop."""
    apex, center, radius = (0.0, 1.0), (0.0, -0.36), 0.60
    right, left = _contacts(apex, center, radius)
    return _union(_circle(x, y, center, radius), _convex(x, y, apex, right, center, left))


def leaf(x: Tensor, y: Tensor) -> Tensor:
    """A pointed leaf with its stalk."""
    blade = torch.maximum(_circle(x, y, (0.55, 0.16), 1.0), _circle(x, y, (-0.55, 0.16), 1.0))
    return _union(blade, _box(x, y, (0.0, -0.78), 0.07, 0.22))


def flower(x: Tensor, y: Tensor) -> Tensor:
    """Five round petals around a disk."""
    x, y = _fold(x, y, 5)
    return _union(_circle(x, y, (0.0, 0.60), 0.37), torch.hypot(x, y) - 0.42)


def mushroom(x: Tensor, y: Tensor) -> Tensor:
    """A half disk on a stalk."""
    cap = torch.maximum(_circle(x, y, (0.0, -0.02), 0.90), -0.02 - y)
    return _union(cap, _box(x, y, (0.0, -0.44), 0.26, 0.44))


DISTANCES: dict[str, Distance] = {
    function.__name__: function
    for function in (
        disk, star, crescent, ring, heart, diamond, spade, club,
        triangle, square, arrow, cross, drop, leaf, flower, mushroom,
    )
}  # fmt: skip


def signed_distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distance to the outline of each scene's shape, in the shape's own unit.

    Args:
        shape: (n,) indices into ``SHAPES``.
        x, y: (n, h, w) points in the shapes' own coordinates.

    Returns:
        (n, h, w), negative inside.
    """
    distance = torch.empty_like(x)
    for index in shape.unique().tolist():
        rows = (shape == index).nonzero()[:, 0]
        distance[rows] = DISTANCES[SHAPES[index]](x[rows], y[rows])
    return distance


def inner_radius() -> Tensor:
    """Radius of the largest disk around each shape's center that lies inside it, (16,); 0 where the center is bare."""
    return _inner_radius().clone()


@cache  # a minibatch of pairs asks twice, and to compute it takes as long as to draw 128 scenes
def _inner_radius() -> Tensor:
    angle = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)[:-1]
    radius = torch.linspace(0, 1, 501, dtype=torch.float64)[:, None]
    x, y = radius * torch.cos(angle), radius * torch.sin(angle)  # (501, 720)
    outside = torch.stack([(distance(x, y) > 0).any(dim=1) for distance in DISTANCES.values()])  # (16, 501)
    return radius[:, 0][outside.int().argmax(dim=1)].float()
