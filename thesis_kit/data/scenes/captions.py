"""True sentences about scenes, in varied words, made from the attribute table.

Which words a scene gets is a matter of its own random numbers: the same scene has the same caption in any batch.
"""

from __future__ import annotations

from thesis_kit.checks import choose
from thesis_kit.data.scenes.table import Table
from thesis_kit.data.scenes.vocabulary import THEME_OF

_STREAM = 104
KINDS = ("class", "full", "theme", "varied")
OPENINGS = ("", "a picture of ", "an image of ", "this is ", "there is ", "we see ")
_TEXTURES = {
    "solid": ("{thing}", "{thing}", "plain {thing}"),
    "stripes": ("striped {thing}", "{thing} with stripes"),
    "dots": ("dotted {thing}", "{thing} with dots"),
    "checker": ("checkered {thing}", "{thing} with a checker pattern"),
}
_SIZES = {"small": 0.40, "large": 0.65}  # below the one, above the other; said of single objects only
_BACKGROUNDS = {
    "plain": ("on a plain background", "before a plain wall"),
    "sky": ("in a sky with clouds", "before a cloudy sky"),
    "waves": ("over waves", "above the waves"),
    "bricks": ("on a brick wall", "before bricks"),
    "rings": ("on rings", "before rings"),
    "diagonals": ("on diagonal stripes", "before diagonals"),
    "tiles": ("on tiles", "before a tiled wall"),
    "hills": ("before hills", "over hills"),
}
_RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "within"),
}
_COUNTS = {2: "two", 3: "three"}
_SHORT = 0.5  # of varied captions


def captions(table: Table, kind: str = "full") -> list[str]:
    """A sentence about each scene of the table.

    Args:
        kind: "class" names the main object's shape and nothing else; "full" also color, texture, background, relation
            and number, at times size or theme, never all in the same words; "theme" names the theme alone; "varied" is
            "class" for every other scene, by chance, and "full" for the rest, as people say now little and now much.

    Raises:
        UnknownName: there is no such kind.

    Examples:
        >>> scenes = tk.data.scenes
        >>> table = scenes.compose([{"shape": "star", "color": "red"}])
        >>> scenes.captions(table)
        ['a picture of a red star on a plain background, a celestial shape']
    """
    choose(kind, KINDS, "kind of caption")
    numbers = table.random().fork(_STREAM).uniform(16).tolist()
    kinds = [_kind(kind, row[-1]) for row in numbers]  # the last number, which no caption comes to
    return [_caption(table.describe(i), kinds[i], _Dice(row)) for i, row in enumerate(numbers)]


def _kind(kind: str, number: float) -> str:
    if kind != "varied":
        return kind
    return "class" if number < _SHORT else "full"


class _Dice:
    """A scene's random numbers, used up one by one."""

    def __init__(self, numbers: list[float]):
        self._numbers = iter(numbers)

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(next(self._numbers) * len(options))]

    def chance(self, share: float) -> bool:
        return next(self._numbers) < share


def _caption(scene: dict, kind: str, dice: _Dice) -> str:
    opening, things = dice.pick(OPENINGS), scene["objects"]
    theme = THEME_OF[things[0]["shape"]]
    if kind == "class":
        return opening + with_article(things[0]["shape"])
    if kind == "theme":
        return opening + with_article(f"{theme} shape")
    alike = scene["relation"] == "alike"
    said = _group(things, dice) if alike else with_article(_thing(things[0], dice, len(things) == 1))
    if scene["relation"] in _RELATIONS:
        said += f" {dice.pick(_RELATIONS[scene['relation']])} {with_article(_thing(things[1], dice, False))}"
    if dice.chance(0.75):
        said += " " + dice.pick(_BACKGROUNDS[scene["background"]])
    if dice.chance(0.33):
        said += f", {theme} shapes" if scene["relation"] == "alike" else f", {with_article(f'{theme} shape')}" * (
            len(things) == 1)  # fmt: skip
    return opening + said


def _thing(thing: dict, dice: _Dice, alone: bool) -> str:
    """An object without its article: "small red striped star"."""
    text = dice.pick(_TEXTURES[thing["texture"]]).format(thing=thing["shape"])
    text = f"{thing['color']} {text}"
    if alone and dice.chance(0.5):
        text = "small " * (thing["size"] < _SIZES["small"]) + "large " * (thing["size"] > _SIZES["large"]) + text
    return text


def _group(things: list[dict], dice: _Dice) -> str:
    text = dice.pick(_TEXTURES[things[0]["texture"]]).format(thing=_plural(things[0]["shape"]))
    return f"{_COUNTS[len(things)]} {things[0]['color']} {text}"


def _plural(noun: str) -> str:
    return "leaves" if noun == "leaf" else f"{noun}es" if noun.endswith("s") else f"{noun}s"


def with_article(text: str) -> str:
    """Words with the article that goes with them: "a star", "an orange star"."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
