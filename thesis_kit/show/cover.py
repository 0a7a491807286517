"""What stands on the book's cover for each chapter: its question, and its finding with the recorded numbers in it.

A finding is a sentence whose numbers are filled in from the results, so that the cover says what the chapters measured
and changes with them. A chapter without recorded results is named as one to come.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from thesis_kit.ledger.claims import catalog
from thesis_kit.ledger.judging import Judged, judge_chapter
from thesis_kit.ledger.results import Result, available, load_result
from thesis_kit.ledger.statistics import Verdict
from thesis_kit.show import diagrams
from thesis_kit.show.claim_rows import SIGNS, anchor

QUESTIONS = {
    "defenses": "Can a network be robust without paying for it, in computing or in data?",
    "certificates": "What does a certificate of robustness certify?",
    "regularization": "Is there robustness without adversarial examples, or only the look of it?",
    "inversion": "What does a class look like to any network?",
    "features": "Where, and on what, does a Vision Transformer look?",
    "clip": "What changes when the teacher is language?",
    "sonification": "What does a speech recognizer hear, layer by layer?",
}
PAGES = {
    "defenses": "01_defenses",
    "certificates": "02_certificates",
    "regularization": "03_regularization",
    "inversion": "04_inversion",
    "features": "05_features",
    "clip": "06_clip",
    "sonification": "07_sonification",
}
PICTURES = {
    "defenses": diagrams.free,
    "certificates": diagrams.shadow,
    "regularization": diagrams.squeezing,
    "inversion": diagrams.inversion,
}
BEGIN, END = "<!-- cards: begin -->", "<!-- cards: end -->"
PICTURE = "<!-- picture: begin -->", "<!-- picture: end -->"


@dataclass(frozen=True)
class Card:
    """A chapter on the cover; ``finding`` and ``page`` are None while it is to come."""

    number: int
    title: str
    question: str
    finding: str | None
    page: str | None


def cards(folder: str | os.PathLike | None = None) -> list[Card]:
    """One card a chapter, in the order of the book."""
    recorded = {name: load_result(name, folder) for name in available(folder)}
    chapters = sorted(catalog().chapters.items(), key=lambda item: item[1].number)
    return [_card(name, about.number, about.title, recorded) for name, about in chapters]


def _card(name: str, number: int, title: str, recorded: Mapping[str, Result]) -> Card:
    needed, sentence = FINDINGS.get(name, ((), None))
    there = sentence is not None and all(result in recorded for result in needed)
    finding = sentence(*(recorded[result] for result in needed)) if there else None
    return Card(number, title, QUESTIONS[name], finding, PAGES[name] if there else None)


def card_block(folder: str | os.PathLike | None = None) -> str:
    """The cards as MyST between two marks, to stand in the cover page."""
    lines = [BEGIN, "<!-- Written by `thesis-kit claims cover --write` from the recorded results; do not edit. -->", ""]
    lines += ["::::{grid} 1 1 2 2", ":gutter: 3", ""]
    for name, card in zip(_order(), cards(folder), strict=True):
        lines += [f":::{{grid-item-card}} {card.number}. {card.title}"]
        lines += [f":link: {card.page}", ":link-type: doc"] * bool(card.page)
        pictured = card.finding and name in PICTURES
        lines += ["", *_raw(f'<div class="tk-card-picture">{PICTURES[name]().html}</div>' if pictured else "")]
        lines += [f"*{card.question}*", "", card.finding or "To come.", ""]
        lines += [*_raw(verdict_strip(judge_chapter(name, folder))), ":::", ""]
    return "\n".join([*lines, "::::", END])


def _order() -> list[str]:
    chapters = catalog().chapters
    return sorted(chapters, key=lambda name: chapters[name].number)


def _raw(text: str) -> list[str]:
    return ["```{raw} html", text, "```", ""] if text else []


def verdict_strip(judged: Iterable[Judged]) -> str:
    """A chapter's verdicts as a row of signs, each a link to its row of the ledger; what is planned is counted."""
    judged = list(judged)
    waiting = sum(one.verdict is Verdict.NOT_RUN for one in judged)
    signs = "".join(
        f'<a href="ledger.html#{anchor(one)}" class="tk-sign tk-{one.verdict.name.lower()}" title="{_told(one)}" '
        f'aria-label="{_told(one)}">{SIGNS[one.verdict]}</a>'
        for one in judged
        if one.verdict is not Verdict.NOT_RUN
    )
    counted = f"<span>{waiting} claim{'s' * (waiting != 1)} not measured yet</span>" * bool(waiting)
    return f'<div class="tk-strip">{signs}{counted}</div>'


def _told(judged: Judged) -> str:
    return html.escape(f"{judged.said} ({judged.arena}): {judged.claim.statement}", quote=True)


def with_cards(page: str, folder: str | os.PathLike | None = None) -> str:
    """The cover page with its cards as the results say now, and its picture where the page has marks for one.

    What stands outside the marks is kept.

    Raises:
        ValueError: the page lacks one of the marks; one sentence.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the cover page should hold {BEGIN} and {END} once each: put them where the cards belong")
    before, _, rest = page.partition(BEGIN)
    page = before + card_block(folder) + rest.partition(END)[2]
    first, last = PICTURE
    if first not in page:
        return page
    before, _, rest = page.partition(first)
    shown = _raw(f'<div class="tk-cover">{diagrams.thesis().html}</div>')
    return before + "\n".join([first, "", *shown, last]) + rest.partition(last)[2]


def _percent(result: Result, measure: str, arm: str) -> str:
    return f"{100 * result.mean(measure, arm).value:.0f}%"


def _defenses(digits: Result, scenes: Result) -> str:
    passes = digits.mean("passes", "pgd-7").value / digits.mean("passes", "free-8 twice").value
    behind = 100 * (digits.mean("R", "pgd-7").value - digits.mean("R", "free-8 twice").value)
    return (
        f"At the cost of ordinary training, Free training keeps {_percent(digits, 'R', 'free-8')} of handwritten "
        f"digits right under attack, where ordinary training keeps {_percent(digits, 'R', 'natural')}. At a "
        f"{_ORDINALS[passes]} of the passes of training against PGD it is {behind:.1f} points below that. And a "
        "robust network lends robustness to a task it has never seen: "
        f"{_percent(scenes, 'R', 'robust-head')} under attack, from clean images alone."
    )


_ORDINALS = {2.0: "half", 4.0: "quarter", 8.0: "eighth"}


def _certificates(scenes: Result) -> str:
    sigmas = [arm for arm in scenes.arms if arm.startswith("shadow@")]
    forged = np.concatenate([seed for arm in sigmas for seed in scenes.per_image("forged", arm).values()])
    smaller = sum(
        scenes.mean("radius", arm).value < scenes.mean("radius", arm.replace("shadow", "natural")).value
        for arm in sigmas
    )
    return (
        "That an answer is stable, not that it is right. "
        f"In {forged.sum():.0f} of {len(forged)} attempts a shadow over an image that was certified rightly got a "
        "wrong label certified. The forged certificates are smaller than the honest ones on average at "
        f"{smaller} of {len(sigmas)} levels of noise."
    )


def _regularization(digits: Result) -> str:
    def over(measure: str, arm: str, control: str) -> str:
        return f"{100 * (digits.mean(measure, arm).value - digits.mean(measure, control).value):.0f}"

    return (
        f"Much of it is look. Squeezing the logits seems to gain {over('weak', 'lsq', 'natural')} points against a "
        f"weak attack; against a strong ensemble {over('worst', 'lsq', 'natural')} are left. Training on noisy images "
        f"is what defends: it gains {over('worst', 'noise', 'natural')} points in the worst case. Training on attacks "
        f"gains more: {over('worst', 'pgd-7', 'natural')}."
    )


def _inversion(scenes: Result) -> str:
    def v(way: str, name: str) -> str:
        return _percent(scenes, "recognized", f"{way}@{name}")

    return (
        "Other networks can often name what one draws. By one setting of Plug-In Inversion they name "
        f"{v('pii', 'resnet')} of a ResNet's drawings, {v('pii', 'vit')} of a ViT's and {v('pii', 'mixer')} of an "
        f"MLP-Mixer's, where the bare gradient gets {v('ce', 'resnet')}, {v('ce', 'vit')} and {v('ce', 'mixer')}. "
        "Moving the picture before every look does about as much alone: "
        f"{v('ce+jitter', 'resnet')}, {v('ce+jitter', 'vit')} and {v('ce+jitter', 'mixer')}."
    )


def _features(scenes: Result) -> str:
    def alike(kind: str, on: str = "vit") -> str:
        return f"{scenes.mean(f'monosemanticity_{kind}_last', f'units@{on}').value:.2f}"

    def right(measure: str) -> str:
        return _percent(scenes, measure, "tokens@vit")

    return (
        "How alike are the scenes that excite a unit most? For a ViT's wide units in late blocks "
        f"{alike('hidden')}, for random directions of their layer {alike('hidden_rotated')}, for queries "
        f"{alike('q')}, for units that never learned {alike('hidden', 'random')}. The answer is read from a token of "
        f"its own. Kept apart from the image until the last block, it is right for {right('isolated')} of scenes in "
        f"place of {right('natural')}; where the image sees its mean instead, for {right('held')}, corrected for "
        "guessing."
    )


def _clip(scenes: Result) -> str:
    def units(on: str) -> str:
        return _percent(scenes, "selective", f"units@{on}")

    def color(on: str) -> str:
        return _percent(scenes, "probe_color", f"probe@{on}")

    return (
        "One network, four teachers. Told all about scenes in sentences, it comes to have units for more than the "
        f"class: {units('captions')} of its late units select a color, a number or the like within a class. Told all "
        f"by labels, {units('attributes')} do; told the class alone, {units('class-captions')} after sentences and "
        f"{units('labels')} after labels; untrained {units('random')}. It is what was told, then, not the language. "
        f"Color goes the same way: a linear probe reads it with {color('captions')} accuracy after all in sentences, "
        f"{color('attributes')} after all by labels, and {color('labels')} after the class by labels, corrected for "
        "guessing."
    )


def _sonification(real: Result) -> str:
    def of(name: str) -> float:
        return real.mean(name, "probe@trained").value

    return (
        f"In Whisper, who says a word can be read off the first layers in {100 * of('speaker_first'):.0f}% of clips "
        f"and off the last in {100 * of('speaker_last'):.0f}%; which word it is, in "
        f"{100 * of('content_first'):.0f}% and {100 * of('content_last'):.0f}%. The pitch within a voice goes from an "
        f"R² of {of('pitch_before'):.2f} at its best to {of('pitch_last'):.2f}. With random weights little of this "
        "happens."
    )


FINDINGS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "defenses": (("defenses.digits", "defenses.scenes"), _defenses),
    "certificates": (("certificates.scenes",), _certificates),
    "regularization": (("regularization.digits",), _regularization),
    "inversion": (("inversion.scenes",), _inversion),
    "features": (("features.scenes",), _features),
    "clip": (("clip.scenes",), _clip),
    "sonification": (("sonification.real",), _sonification),
}
