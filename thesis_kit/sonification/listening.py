"""Which sounds excite a unit: the best pieces of real clips, and sounds that are optimized until they do.

How the Feature Sonification article (Ghiasi et al., VISxAI 2021) made its optima was not published; the objectives here
are ours, and what is theirs is the question, the network and the ranking of aligned pieces.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thesis_kit.checks import check_count, choose
from thesis_kit.data.speech import RATE, Clip
from thesis_kit.randomness import ImageRandom, mix_seed
from thesis_kit.recording import record, sites
from thesis_kit.recording.batches import named
from thesis_kit.sonification.states import Piece, layouts, over_pieces, pieces, states
from thesis_kit.synthesis import (
    IMAGES,
    Adam,
    BandMask,
    Canvas,
    Ensemble,
    Gain,
    GaussianNoise,
    Jitter,
    Objective,
    ShortTime,
    Stage,
    Waveform,
    maximize,
    synthesize,
)

FORMS = {"stft": ShortTime, "wave": Waveform}
_FADE = 0.01  # seconds at either end of what is played
_LOUDNESS, _PEAK = 0.08, 0.95  # root mean square and highest sample of what is played


@dataclass(frozen=True)
class TopPiece:
    """A phone or word that a unit answers most, with its mean activation there."""

    piece: Piece
    value: float


def top_segments(
    model: nn.Module, clips: Sequence[Clip], name: str, units: Sequence[int], *, k: int = 5, by: str = "phone"
) -> list[list[TopPiece]]:
    """The k phones or words of clips that excite each unit most, one list a unit, the best first.

    Args:
        model, clips, name: as for ``states``. units: of the layer. k: at most. by: "phone" or "word".

    Raises:
        ValueError: clips without times, a unit that is not there; as ``states``.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clips = [tk.data.speech.say("good morning")]
        >>> found = tk.sonification.top_segments(hearing, clips, "blocks.0", [0, 1], k=2, by="word")
        >>> [len(strongest) for strongest in found]
        [2, 2]
    """
    check_count(k, what="k")
    parts = pieces(clips, by)
    means = over_pieces(states(model, clips, name), clips, parts)[name]  # (pieces, units)
    check_units(units, means.shape[1], name)
    best = means[:, list(units)].topk(min(k, len(parts)), dim=0)
    return [[TopPiece(parts[row], value) for row, value in zip(rows, values, strict=True)]
            for rows, values in zip(best.indices.T.tolist(), best.values.T.tolist(), strict=True)]  # fmt: skip


def check_units(units: Sequence[int], width: int, name: str) -> None:
    """Require numbers of units that a layer has."""
    wrong = [unit for unit in units if not 0 <= unit < width]
    if wrong or not len(units):
        raise ValueError(f"{name} has the units 0 … {width - 1}, got {wrong or 'none'}")


def cut(clip: Clip, start: float, end: float) -> Float[Tensor, " t"]:
    """The samples of a clip from ``start`` to ``end`` in seconds.

    Examples:
        >>> clip = tk.data.speech.from_samples(torch.zeros(16_000), 16_000)
        >>> tk.sonification.cut(clip, 0.25, 0.5).shape
        torch.Size([4000])
    """
    return clip.waveform[round(start * RATE) : round(end * RATE)]


def before_nonlinearity(model: nn.Module, name: str) -> str:
    """The layer that gives a layer's units before their nonlinearity, where there is one; else the layer itself.

    Behind a ReLU or a GELU a unit that is off has no gradient, and an optimum begun there stays where it is.

    Examples:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> tk.sonification.before_nonlinearity(network, "1")
        '1'
    """
    known = sites(model)
    modules, site = known.modules, known.get(name)
    if f"{name}.before" in modules:
        return f"{name}.before"
    if site is None or site.kind != "hidden":
        return name
    holder, _, last = site.module.rpartition(".")
    children = [(child, part) for child, part in modules[holder].named_children() if isinstance(part, nn.Linear)]
    firsts = [child for child, part in children if child != last and part.out_features == site.width]
    return f"{holder}.{firsts[0]}" if firsts else name


def excitation(name: str, units: Sequence[int], time: int) -> Objective:
    """The mean of each target's unit over a sound's steps, so that a long sound does not win by its length.

    Args:
        name: of the layer. units: one a target. time: the axis of time, 1 or 2 (``states.layouts``).
    """
    wanted = torch.tensor(list(units))

    def read(seen, index: Tensor) -> Tensor:
        rows = seen[name].float().transpose(2, 3) if time == 2 else seen[name].float()  # (n, e, steps, units)
        unit = wanted.to(rows.device)[index].view(-1, 1, 1, 1).expand(*rows.shape[:3], 1)
        return rows.gather(3, unit)[..., 0].mean(dim=(1, 2))

    return Objective([name], read, f"units of {name}", targets=len(wanted),
                     settings=f"units of {name} {wanted.tolist()} {time}")  # fmt: skip


def loudness() -> Objective:
    """The mean square of the sounds as the network gets them."""
    return Objective([IMAGES], lambda seen, index: seen[IMAGES].float().square().flatten(1).mean(dim=1), "loudness",
                     settings="loudness")  # fmt: skip


@dataclass(frozen=True)
class Sounds:
    """What ``sonify`` came to: ``waveforms`` (n, t) in [−1, 1] at 16 kHz, one a unit.

    ``layer`` is where the units were read, ``before`` and ``after`` (n,) are their mean activations in the sounds at
    the start and at the end, without augmentations; ``losses`` (steps, n); ``seconds`` is what it took.
    """

    waveforms: Tensor
    layer: str
    units: tuple[int, ...]
    before: Tensor
    after: Tensor
    losses: Tensor
    seconds: float


def sonify(
    model: nn.Module, name: str, units: Sequence[int], *, seconds: float = 1.0, form: str = "stft", steps: int = 200,
    lr: float = 0.05, copies: int = 2, quiet: float = 1.0, clips: Sequence[Clip] | None = None, seed: int = 0,
    **knobs: object,
) -> Sounds:  # fmt: skip
    """Sounds that excite units, one a unit, all optimized together.

    Units are read before their nonlinearity (``before_nonlinearity``), as a mean over time. Each step the network gets
    copies that are rolled in time by up to a tenth, louder or softer by up to 6 dB, without a band, and with hiss.

    Args:
        model: waveforms (n, t) to anything; evaluated, left as found.
        name: of a layer or site. units: which; a unit may come several times and gives another sound each time.
        seconds: how long the sounds are, to 8 ms. form: "stft", short-time spectra, or "wave", samples.
        steps, lr, copies: of the optimization. quiet: weight of the sounds' mean square.
        clips: start from the piece of these that excites a unit most, softly, instead of from faint noise.
        seed: of all random numbers. knobs: others of ``synthesize``, such as ``checkpoint`` and ``augmentations``.

    Raises:
        ValueError: a unit that is not there, a length of nothing, clips without times. UnknownName: no such layer.

    Warns:
        UserWarning: a unit has no gradient at its start.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> tk.sonification.sonify(hearing, "blocks.0", [0, 1], seconds=0.25, steps=1).waveforms.shape
        torch.Size([2, 3968])
    """
    place = before_nonlinearity(model, named(name)[0])
    layout = layouts(model, [place])[place]
    check_units(units, layout.units, place)
    canvas: Canvas = choose(form, FORMS, "form of sounds")()
    length = round(seconds * RATE / 128) * 128
    if length < 512:
        raise ValueError(f"sounds must last 0.032 s at least, got {seconds:g}: give more seconds")
    start = _first(canvas, units, length, seed)
    if clips is not None:
        best = top_segments(model, clips, name, units, k=1)
        start = torch.stack([_laid(top[0].piece, clips, length) for top in best])
    _warn_of_dead_starts(model, start, place, units, layout.time)
    heard = [Jitter(length // 10), Ensemble(copies), Gain(6.0), BandMask(0.15), GaussianNoise(0.003)]
    asked = maximize(excitation(place, units, layout.time)) + quiet * loudness()
    settings = {"augmentations": heard, "optimizer": Adam(lr, (0.9, 0.99)), "seed": seed, **knobs}
    found = synthesize(model, asked, stages=Stage((1, length), steps), channels=1, parametrization=canvas,
                       start=start[:, None, None], **settings)  # fmt: skip
    waveforms = found.images[:, 0, 0]
    sounds = [Clip(row, "") for rows in (start, waveforms) for row in rows]
    means = torch.stack([row.mean(dim=0) for row in states(model, sounds, place)[place]])  # (2 n, units)
    picked = means[torch.arange(len(sounds)), list(units) * 2]
    before, after = picked.split(len(units))
    return Sounds(waveforms, place, tuple(units), before, after, found.losses, found.seconds)


def _warn_of_dead_starts(
    model: nn.Module, start: Float[Tensor, "n t"], place: str, units: Sequence[int], time: int
) -> None:
    """Name units that have no gradient at their start, whatever else has one."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = start.detach().to(device).requires_grad_()
    with torch.enable_grad():
        seen = {place: record(model, x, [place], grad=True)[place][:, None]}
        value = excitation(place, units, time)(seen, torch.arange(len(units), device=device)).sum()
        gradient = torch.autograd.grad(value, x)[0] if value.requires_grad else torch.zeros_like(x)
    dead = [unit for unit, row in zip(units, gradient, strict=True) if not row.any()]
    if dead:
        warnings.warn(
            f"the units {dead[:8]} of {place} have no gradient at the start: they are constant there, as behind a ReLU "
            "that is off; read the layer before it, or start from clips", stacklevel=3,
        )  # fmt: skip


def _first(canvas: Canvas, units: Sequence[int], length: int, seed: int) -> Float[Tensor, "n t"]:
    """Faint noise, a target's own."""
    random = ImageRandom(mix_seed(seed, 0), torch.arange(len(units)))
    return canvas.image(canvas.start(random, 1, (1, length), like=torch.zeros(())))[:, 0, 0]


def _laid(piece: Piece, clips: Sequence[Clip], length: int) -> Float[Tensor, " t"]:
    """A piece of a clip, softly, again and again until it fills a sound, as the article's cuts were tiled."""
    samples = cut(clips[piece.clip], piece.start, piece.end)
    samples = samples if len(samples) else clips[piece.clip].waveform
    return 0.3 * samples.repeat(-(-length // len(samples)))[:length]


def playable(waveform: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """A sound as loud as the others that are played, with 10 ms of fading at either end, so that nothing clicks.

    Examples:
        >>> tk.sonification.playable(0.01 * torch.ones(16_000)).shape
        torch.Size([16000])
    """
    waveform = waveform.detach().float().cpu()
    level = waveform.square().mean().sqrt().clamp_min(1e-6)
    scaled = waveform * min(_LOUDNESS / level.item(), _PEAK / max(waveform.abs().max().item(), 1e-6))
    length = min(round(_FADE * RATE), len(scaled) // 2)
    fade = torch.ones_like(scaled)
    if length:
        ramp = torch.linspace(0, 1, length)
        fade[:length], fade[-length:] = ramp, ramp.flip(0)
    return scaled * fade
