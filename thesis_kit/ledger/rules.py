"""The little language that rules are written in: arithmetic over measures of arms, and a threshold.

``"R(free-8) - R(natural) >= 20 points"`` is a contrast, ``"passes(free-8) <= 0.25 * passes(pgd-7)"`` a
condition. Whether the names in them are known is for the claims file to say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_TERM = re.compile(r"([A-Za-z_]\w*)\(([^()]+)\)")
_NUMBER = r"\d+(?:\.\d+)?"
_RULE = re.compile(
    rf"^(?P<left>.+?)\s*(?:>=\s*(?P<threshold>-?{_NUMBER})|\bwithin\s+(?P<only>{_NUMBER}))\s*(?P<unit>points)?"
    rf"(?:,?\s*or within\s+(?P<else>{_NUMBER})(?:\s*points)?)?$"
)
_CONDITION = re.compile(r"^(?P<left>.+?)(?P<comparison>==|<=|>=)(?P<right>.+)$")
_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


class BadClaims(ValueError):
    """The claims file says something that cannot be meant; the sentence names the row."""


@dataclass(frozen=True)
class Expression:
    """Arithmetic over measures of arms, such as ``0.8*R(depth-0) - R(natural)``; ``terms`` lists (measure, arm)."""

    text: str
    terms: tuple[tuple[str, str], ...]
    tree: ast.expr = field(compare=False, repr=False)

    def __call__(self, *values: Any) -> Any:
        """The value when the terms have these values, which may be arrays."""
        return _evaluate(self.tree, values)

    @property
    def is_share(self) -> bool:
        """Whether it is a single measure as it stands."""
        return isinstance(self.tree, ast.Name)


@dataclass(frozen=True)
class Contrast:
    """A linear expression that a claim wants at ``threshold`` or above, and how its interval is made.

    ``within`` is how far from zero counts as the same: what the claim asks for where there is no threshold, and beside
    one the answer where no sign of the difference is shown. ``directed`` says that zero means no difference, as it does
    for a difference of like measures and does not for a level.
    """

    text: str
    expression: Expression
    threshold: float | None
    kind: str
    within: float | None = None
    directed: bool = True

    @property
    def marks(self) -> tuple[float, ...]:
        """The ends that an interval is held to: the threshold, or both ends of what counts as the same."""
        return (-self.within, self.within) if self.threshold is None else (self.threshold,)

    @property
    def points(self) -> bool:
        """Whether the numbers are percentage points of images."""
        return self.kind == "items"

    @property
    def paired(self) -> bool:
        """Whether the arms are compared image by image."""
        return self.kind in ("items", "images")


@dataclass(frozen=True)
class Condition:
    """A comparison of means that must be true for the rule to count."""

    text: str
    left: Expression
    comparison: str
    right: Expression


@dataclass(frozen=True)
class Reported:
    """A quantity printed beside the verdict and not judged."""

    title: str
    expression: Expression
    points: bool


def parse_expression(text: str, where: str) -> Expression:
    """Read arithmetic (+ − * /, numbers, parentheses) over terms like ``R(free-8)``."""
    terms: list[tuple[str, str]] = []

    def name(match: re.Match) -> str:
        term = match[1], match[2].strip()
        if term not in terms:
            terms.append(term)
        return f"_{terms.index(term)}"

    source = _TERM.sub(name, text.strip())
    try:
        tree = ast.parse(source, mode="eval").body
        _evaluate(tree, [np.ones(1)] * len(terms))
    except (SyntaxError, KeyError, IndexError, ValueError) as error:
        raise BadClaims(f"{where} cannot be read: {text!r} should be arithmetic over terms like R(free-8)") from error
    return Expression(text.strip(), tuple(terms), tree)


def _evaluate(node: ast.expr, values: Any) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name) and re.fullmatch(r"_\d+", node.id):
        return values[int(node.id[1:])]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, values)
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.left, values), _evaluate(node.right, values))
    raise ValueError(f"{type(node).__name__} has no place in a rule")


def parse_contrast(text: str, interval: str, where: str) -> Contrast:
    """Read a rule such as ``"R(free-8) - R(natural) >= 20 points"``, ``"R(a) - R(b) within 5 points"`` or ``"… >= 0
    points or within 5 points"``; its left side must be linear in its terms."""
    match = _RULE.match(str(text).strip())
    if match is None or (match["only"] and match["else"]):
        raise BadClaims(
            f"a rule of {where} cannot be read: {text!r} should look like 'R(a) - R(b) >= 20 points' or "
            "'R(a) - R(b) within 5 points'"
        )
    kind = "items" if match["unit"] else interval if interval in ("shares", "images", "trials") else "scalars"
    expression = parse_expression(match["left"], f"a rule of {where}")
    coefficients = _coefficients(expression)
    if coefficients is None or not expression.terms:
        raise BadClaims(f"a rule of {where} must be linear in its measures: {text!r} is not")
    threshold = None if match["threshold"] is None else float(match["threshold"])
    within = next((float(match[part]) for part in ("only", "else") if match[part]), None)
    directed = abs(sum(coefficients)) < 1e-9
    if within is not None and (not directed or within == 0):
        raise BadClaims(f"a rule of {where} can be within a distance (above 0) for a difference only: {text!r} is not")
    if kind == "trials" and (not expression.is_share or threshold is None or not 0 < threshold < 1):
        raise BadClaims(f"a rule of {where} must be one share and a probability: {text!r} is not")
    if kind == "shares" and coefficients not in ([1.0], [1.0, -1.0]):
        raise BadClaims(f"a rule of {where} must be one share or a difference of two: {text!r} is not")
    return Contrast(str(text).strip(), expression, threshold, kind, within, directed)


def _coefficients(expression: Expression) -> list[float] | None:
    """The factor of each term, or None where the expression is not linear: tested at numbers without a pattern."""
    k = len(expression.terms)
    with np.errstate(all="ignore"):
        units = [float(expression(*np.eye(k)[i])) for i in range(k)]
        probes = np.random.default_rng(0).uniform(0.5, 2, size=(3, k))
        linear = all(np.isclose(float(expression(*probe)), probe @ np.array(units)) for probe in probes) if k else False
    return units if linear and np.isfinite(units).all() else None


def parse_condition(text: str, where: str) -> Condition:
    match = _CONDITION.match(str(text).strip())
    if match is None:
        raise BadClaims(f"a condition of {where} cannot be read: {text!r} should compare two sides by ==, <= or >=")
    left, right = (parse_expression(match[side], f"a condition of {where}") for side in ("left", "right"))
    return Condition(str(text).strip(), left, match["comparison"], right)


def parse_report(title: str, text: str, where: str) -> Reported:
    text = str(text).strip()
    points = text.endswith(" points")
    return Reported(title, parse_expression(text.removesuffix(" points"), f"a report of {where}"), points)
