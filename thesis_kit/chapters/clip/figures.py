"""What chapter 6's notebook shows: units of twins side by side, pictures of prompts, the quiz of order, attacks, and
false words."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from thesis_kit.chapters.clip.world import judged_table
from thesis_kit.data.scenes.captions import with_article
from thesis_kit.data.scenes.pairs import misnamed
from thesis_kit.data.scenes.render import render
from thesis_kit.ledger.results import NotRecorded, Result
from thesis_kit.ledger.statistics import wilson
from thesis_kit.ledger.thumbnails import unpack_picture
from thesis_kit.show.figures import COLORS, Shown, canvas, card, present, style
from thesis_kit.show.pictures import grid, montage, pixels, rows_of_pictures, tile, words
from thesis_kit.show.players import Slider, slider
from thesis_kit.show.shown import require_words
from thesis_kit.show.tables import mean_with_ends, table

_SMALL = 44  # pixels of a scene in a strip
_LOOKS = (("blue", "o"), ("vermilion", "s"), ("gray", "x"))
_LINES = (("blue", "o"), ("sky", "^"), ("orange", "s"), ("vermilion", "D"), ("gray", "x"))


def units_explorer(
    recorded: Result, twins: Mapping[str, str], *, label: str, caption: str, rows: int = 4
) -> Slider:
    """The same positions in several networks under a slider, a row a unit: its strongest scenes and its name in each.

    Args:
        twins: what a network is called → its teacher, of whom units are recorded. rows: units of a frame.
    """
    cells = _shown(recorded, {called: f"units@{teacher}" for called, teacher in twins.items()}, "strongest")
    units = next(iter(cells.values()))["chosen"]["units"]
    images = _scenes_of(cells)
    frames = [units[i : i + rows] for i in range(0, len(units), rows)]

    def frame(number: float) -> tuple[str, str]:
        at = round(number) - 1
        places = range(at * rows, at * rows + len(frames[at]))
        said = f"Units {', '.join(map(str, frames[at]))}"
        head = [words(called, end=True) for called in twins]
        tracks = f"repeat({len(twins)},minmax(0,1fr))"
        shown = [cell for place in places for cell in _unit(cells, images, place)]
        seen = grid([*head, *shown], tracks, widest=150 * len(twins), alt=f"{said} in {len(twins)} networks")
        return seen, f"{said}."

    alt = "The same positions in several networks, each with its strongest scenes and the name that measurement finds."
    return slider(frame, tuple(range(1, len(frames) + 1)), name="units", label=label, caption=caption, alt=alt)


def _shown(recorded: Result, arms: Mapping[str, str], what: str) -> dict[str, dict]:
    """What is called how → the cell of seed 0 of its arm, which has to hold something to be shown, of the same images.

    Raises:
        NotRecorded: it was not recorded, or of other images than the first.
    """
    cells = {}
    for called, arm in arms.items():
        cell = recorded.cells.get(arm, {}).get(0, {})
        if what not in cell.get("chosen", {}):
            raise NotRecorded(f"{arm}, seed 0, of {recorded.name} has no {what} to show: record it anew")
        cells[called] = cell
    if len({cell["group"] for cell in cells.values()}) > 1:
        raise NotRecorded(f"{', '.join(arms.values())} of {recorded.name} were asked about different images")
    return cells


def _scenes_of(cells: Mapping[str, dict]) -> dict[int, Tensor]:
    """The scenes that any unit is excited by most, drawn small."""
    ids = sorted({one for cell in cells.values() for best in cell["chosen"]["strongest"] for one in best})
    settings = next(iter(cells.values()))["settings"]
    small = F.interpolate(
        render(judged_table(settings, ids), settings["size"]).images, (_SMALL, _SMALL), mode="bilinear", antialias=True
    )
    return dict(zip(ids, small, strict=True))


def _unit(cells: Mapping[str, dict], images: Mapping[int, Tensor], place: int) -> list[str]:
    """A row of the explorer: a unit in each network, over its name."""
    unit = next(iter(cells.values()))["chosen"]["units"][place]
    row = [f'<div style="grid-column:1/-1">Unit {unit}</div>']
    for called, cell in cells.items():
        found = {name: column[place] for name, column in cell["chosen"].items()}
        alt = f"Unit {found['units']}, {called}: its {len(found['strongest'])} strongest scenes."
        seen = tile(montage([images[one] for one in found["strongest"]], columns=2), alt, quality=60)
        sure = "" if found["auroc"] is None else f"\n{found['auroc']:.2f}"
        row.append(f"<div>{seen}{words(found['measured'] + sure)}</div>")
    return row


def twins_table(
    recorded: Result, question: str, columns: Mapping[str, str], twins: Mapping[str, str], *, caption: str
) -> Shown:
    """Recorded numbers of twins, the mean and its 95% interval over twins: a row a teacher, a column a measure.

    Args:
        question: of the arms, as in ``question@teacher``. columns: measure → what it is called; names that speak of an
            AUROC are shown with two decimals, others as percentages. twins: what a teacher is called → its name.
    """
    rows = [
        (called, *(mean_with_ends(recorded, measure, f"{question}@{teacher}", percent="AUROC" not in title)
                   for measure, title in columns.items()))
        for called, teacher in twins.items()
    ]  # fmt: skip
    return table(rows, ("mean (95%)", *columns.values()), caption=caption)


def blocks_figure(recorded: Result, twins: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """The share of units of every block that select a concept within a class: a line a network, a color a teacher."""
    said = []
    with style():
        figure, axis = canvas(size=(7, 3.8))
        for (called, teacher), (color, marker) in zip(twins.items(), _LINES, strict=False):
            every = [100 * points[:, 1] for points in recorded.curves("selective", f"units@{teacher}").values()]
            for i, line in enumerate(every):
                blocks = range(1, len(line) + 1)
                axis.plot(blocks, line, color=COLORS[color], marker=marker, label=called if i == 0 else None)
            said.append(f"{called}: {', '.join(f'{value:.0f}' for value in sum(every) / len(every))}")
        axis.set_xlabel("block"), axis.set_ylabel("units that select a concept (%)"), axis.set_xticks(list(blocks))
        axis.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
    alt = f"Shares of units in percent by block, means over networks. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)


def shares_table(rows: Mapping[str, Tensor], head: Sequence[str], *, caption: str) -> Shown:
    """The share of True of each row with its 95% interval by Wilson, and of how many."""

    def cells(right: Tensor) -> tuple[str, str]:
        low, high = wilson(int(right.sum()), len(right))
        return f"{right.double().mean():.0%} ({100 * low:.0f} to {100 * high:.0f})", str(len(right))

    return table([(called, *cells(right)) for called, right in rows.items() if len(right)], head, caption=caption)


def prompt_explorer(
    drawn: Mapping[str, Mapping[str, Sequence[Tensor]]], read: Mapping[str, Mapping[str, Sequence[str]]], *,
    name: str, label: str, caption: str,
) -> Slider:  # fmt: skip
    """Pictures of prompts under a slider, as they are: a frame's name → prompt → a picture a seed, with what other
    networks read in each."""
    names = list(drawn)

    def page(number: float) -> tuple[str, str]:
        frame = names[round(number) - 1]
        seeds = len(next(iter(drawn[frame].values())))
        cells = []
        for prompt, pictures in drawn[frame].items():
            cells.append(f'<div style="grid-column:1/-1;font-weight:600;margin-top:4px">{html.escape(prompt)}</div>')
            for i, picture in enumerate(pictures):
                reading = html.escape(read[frame][prompt][i])
                alt = f"Drawn for “{prompt}”, seed {i}; read as {read[frame][prompt][i]}."
                seen = tile(pixels(picture), alt, quality=60)
                cells.append(f'<div>{seen}<div style="text-align:center">{reading}</div></div>')
        return _columns(cells, seeds, len(drawn[frame])), f"{frame}."

    numbers = tuple(range(1, len(names) + 1))
    return slider(page, numbers, name=name, label=label, caption=caption,
                  alt="Pictures that a pair draws for prompts, with what other networks read in them.")  # fmt: skip


def _columns(cells: Sequence[str], seeds: int, prompts: int) -> str:
    """A block a prompt: its name over its pictures; blocks side by side where there is room."""
    each = 1 + seeds
    blocks = [
        grid(cells[i : i + each], f"repeat({seeds},minmax(0,1fr))", widest=105 * seeds, alt="pictures of one prompt")
        for i in range(0, len(cells), each)
    ]
    return grid(blocks, "repeat(auto-fill,minmax(150px,1fr))", widest=220 * prompts, alt="prompts")


def prompts_figure(
    pictures: Mapping[str, Sequence[Tensor]], columns: Sequence[str], *, label: str, caption: str, alt: str,
    below: Sequence[str] = (),
) -> Shown:  # fmt: skip
    """Pictures as they are, in rows of a name each."""
    require_words(alt=alt)
    rows = {
        name: [tile(pixels(one), f"{name} {column}".strip()) for one, column in zip(row, columns, strict=True)]
        for name, row in pictures.items()
    }
    inner = rows_of_pictures(rows, columns, alt=alt, cell=110, below=below)
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def neutral_prompts(
    recorded: Result, arms: Mapping[str, str], prompts: Mapping[str, str], *, label: str, caption: str, alt: str
) -> Shown:
    """Recorded pictures of prompts that name no color, a row a training, over what another network read in each.

    Args:
        arms: what a training is called → its arm. prompts: prompt → what stands over its pictures.
    """
    require_words(alt=alt)
    rows = {}
    for called, cell in _shown(recorded, arms, "read").items():
        rows[called] = []
        for one in prompts:
            read = f"read as: {cell['chosen']['read'][one]}"
            seen = tile(pixels(unpack_picture(cell["pictures"][one])), f"{one}, {called}; {read}", quality=70)
            rows[called].append(f"<div>{seen}{words(read)}</div>")
    inner = rows_of_pictures(rows, [*prompts.values()], alt=alt, cell=110, fold=3)
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def false_words(recorded: Result, arms: Mapping[str, str], *, label: str, caption: str) -> Shown:
    """The first scenes with a false word on each, over what every network answers without and with it."""
    cells = _shown(recorded, arms, "first")
    first = next(iter(cells.values()))
    told, settings = first["chosen"]["first"], first["settings"]
    count = len(told["label"])
    images = render(misnamed(judged_table(settings, range(count))), settings["size"]).images
    tiles = []
    for i, image in enumerate(images):
        answers = {called: cell["chosen"]["first"] for called, cell in cells.items()}
        said = "\n".join(f"{called}: {one['plain'][i]} → {one['written'][i]}" for called, one in answers.items())
        alt = f"A scene with {with_article(told['label'][i])}, and the word “{told['word'][i]}” on it."
        tiles.append(f"<div>{tile(pixels(image), alt, quality=80)}{words(said)}</div>")
    inner = grid(tiles, "repeat(auto-fill,minmax(150px,1fr))", widest=3 * 190, alt="scenes with false words")
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def order_quiz(
    pairs: Sequence[tuple[Tensor, Tensor]], said: Sequence[str], near: Float[Tensor, "m 2"], right: Int[Tensor, " m"],
    *, label: str, caption: str,
) -> Shown:  # fmt: skip
    """Two pictures and one sentence, several times: which does it belong to? The answer, and the pair's, fold out.

    Args:
        pairs: pictures left and right. said: the sentences. near: the pair's cosines of both pictures with each.
        right: which picture each sentence is true of.
    """
    parts = []
    for i, (one, other) in enumerate(pairs):
        tiles = [tile(pixels(x), f"Picture {at} of question {i + 1}") for at, x in (("A", one), ("B", other))]
        seen = rows_of_pictures({"": tiles}, ["A", "B"], alt=f"Question {i + 1}: {said[i]}", cell=130)
        truth, told = "AB"[int(right[i])], "AB"[int(near[i].argmax())]
        verdict = f"It is {truth}. The pair says {told}: cosines {near[i, 0]:.2f} and {near[i, 1]:.2f}."
        parts.append(
            f'<div style="margin:6px 0"><div>“{html.escape(said[i])}”: A or B?</div>{seen}'
            f"<details><summary>Answer</summary>{html.escape(verdict)}</details></div>"
        )
    tracks = "repeat(auto-fit,minmax(240px,1fr))"
    inner = grid(parts, tracks, widest=840, alt="Which of two pictures does a sentence belong to?")
    return Shown(card(inner, label=label, caption=caption), f"{label}. {caption}")


def attacks_figure(
    kept: Mapping[str, Mapping[float, float]], *, label: str, caption: str, name: str = "right answers"
) -> Shown:
    """Shares by the radius of attacks in steps of 1/255: network → radius → share."""
    said = []
    with style():
        figure, axis = canvas(size=(7, 3.6))
        for (network, line), (color, marker) in zip(kept.items(), _LOOKS, strict=False):
            radii = [255 * radius for radius in line]
            shares = [100 * share for share in line.values()]
            axis.plot(radii, shares, color=COLORS[color], marker=marker, label=network)
            said.append(f"{network}: {', '.join(f'{share:.0f}' for share in shares)}")
        axis.set_xlabel("radius of the attack, in steps of 1/255"), axis.set_ylabel(f"{name} (%)")
        axis.set_ylim(-3, 103)
        figure.legend(loc="outside lower center", ncols=2)
    radii = ", ".join(f"{255 * radius:g}" for radius in next(iter(kept.values())))
    alt = f"{name.capitalize()} in percent at radii {radii}, in steps of 1/255. {'; '.join(said)}."
    return present(figure, label=label, caption=caption, alt=alt)
