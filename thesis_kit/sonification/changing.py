"""Sounds that a layer takes for others, and clips that differ in one thing: metamers and edits.

A metamer of a clip (Feather et al., Nature Neuroscience 2023) is found from noise: whatever it sounds like, the layer's
states are the clip's, so what is missing in it is what the layer does not keep. An edit is the same words said again
with another pitch, speed or voice and all else equal, as only a synthesizer can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.checks import choose
from thesis_kit.data.speech import Clip, say_all, together
from thesis_kit.identity import tensor_hash
from thesis_kit.recording import record
from thesis_kit.recording.batches import named
from thesis_kit.sonification.listening import FORMS
from thesis_kit.sonification.probes import deviations
from thesis_kit.sonification.states import layouts, pooled
from thesis_kit.synthesis import Adam, Objective, Stage, synthesize

_SEMITONE = 1 / 12 / 0.0173  # in settings of eSpeak NG's pitch, which are 0.0173 octaves each


_SEEDS = 1000  # a clip


@dataclass(frozen=True)
class Metamers:
    """``waveforms``: a list a clip of one sound (t,) a seed; ``distances`` (clips, seeds): of states, relative, as the
    last step found them, before it moved the sound once more."""

    waveforms: list[list[Tensor]]
    distances: Tensor


def resynthesize(
    model: nn.Module, clips: Sequence[Clip], name: str, *, steps: int = 300, lr: float = 0.05,
    seeds: Sequence[int] = (0,), form: str = "stft", **knobs: object,
) -> Metamers:  # fmt: skip
    """Sounds found from noise whose states at a layer are those of clips.

    Args:
        model: waveforms (n, t) to anything; evaluated, left as found. clips: what is to be matched.
        name: of a layer or site. steps, lr: of Adam. seeds: a sound each, different numbers below 1000. form: as for
            ``sonify``.
        knobs: others of ``synthesize``, such as ``checkpoint`` and ``batch``.

    Raises:
        ValueError: no clips or seeds, or seeds out of range; as ``layouts``. UnknownName: the layer does not exist.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clips = [tk.data.speech.say("yes")]
        >>> tk.sonification.resynthesize(hearing, clips, "blocks.0", steps=1).distances.shape
        torch.Size([1, 1])
    """
    if not len(clips) or not len(seeds):
        raise ValueError("metamers are made of at least one clip and one seed")
    if len({*seeds}) != len(seeds) or not all(0 <= seed < _SEEDS for seed in seeds):
        raise ValueError(f"seeds must be different whole numbers from 0 to {_SEEDS - 1}, got {list(seeds)}")
    (name,) = named(name)
    layout = layouts(model, [name])[name]
    x, lengths = together([clip.waveform for clip in clips])
    x = F.pad(x, (0, max(512, -(-x.shape[1] // 128) * 128) - x.shape[1]))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    wanted = _by_time(record(model, x.to(device), [name])[name], layout.time)  # (clips, steps, units)
    steps_of = (lengths / layout.samples).ceil().clamp_min(1)
    inside = (torch.arange(wanted.shape[1]) < steps_of[:, None]).to(device)  # (clips, steps)
    asked = _likeness(name, wanted, inside, layout.time, len(seeds))
    found = synthesize(model, asked, stages=Stage((1, x.shape[1]), steps), channels=1,
                       parametrization=choose(form, FORMS, "form of sounds")(), optimizer=Adam(lr, (0.9, 0.99)),
                       ids=[clip * _SEEDS + seed for seed in seeds for clip in range(len(clips))], **knobs)  # fmt: skip
    sounds = found.images[:, 0, 0].view(len(seeds), len(clips), -1)
    own = [[sounds[seed, clip, :length] for seed in range(len(seeds))] for clip, length in enumerate(lengths.tolist())]
    return Metamers(own, found.losses[-1].view(len(seeds), len(clips)).T)


def _by_time(states: Tensor, time: int) -> Tensor:
    return states.transpose(-2, -1) if time == 2 else states


def _likeness(name: str, wanted: Tensor, inside: Tensor, time: int, seeds: int) -> Objective:
    """‖h(x) − h(x₀)‖ / ‖h(x₀)‖ over the steps of each target's own clip."""
    size = (wanted.square().sum(dim=2) * inside).sum(dim=1).sqrt().clamp_min(1e-9)  # (clips,)

    def read(seen, index: Tensor) -> Tensor:
        own = index % len(wanted)
        gap = _by_time(seen[name].float(), time) - wanted[own][:, None]  # (n, e, steps, units)
        square = (gap.square().sum(dim=3) * inside[own][:, None]).sum(dim=2)  # (n, e)
        return ((square + 1e-12).sqrt() / size[own][:, None]).mean(dim=1)

    return Objective([name], read, f"likeness at {name}", targets=seeds * len(wanted),
                     settings=f"likeness at {name} {tensor_hash(wanted)} {seeds}")  # fmt: skip


def edited(
    clips: Sequence[Clip], *, semitones: float = 0.0, rate: int | None = None, voice: str | None = None
) -> list[Clip]:
    """The same words said again, higher or lower, faster or slower, or by somebody else, and all else equal.

    Args:
        clips: synthesized ones. semitones: to raise the pitch by. rate: words a minute. voice: of ``data.speech.say``.

    Raises:
        ValueError: a recording among the clips; a pitch or rate that the synthesizer does not have.

    Examples:
        >>> clip = tk.data.speech.say("good morning")
        >>> faster = tk.sonification.edited([clip], rate=200)[0]
        >>> len(faster.waveform) < len(clip.waveform)
        True
    """
    if any(clip.said is None for clip in clips):
        raise ValueError("only synthesized clips can be said again in another way: make them with data.speech.say")
    changes = {key: value for key, value in (("rate", rate), ("voice", voice)) if value is not None}
    return say_all([replace(clip.said, pitch=clip.said.pitch + round(semitones * _SEMITONE), **changes)
                    for clip in clips])  # fmt: skip


def change(
    model: nn.Module, clips: Sequence[Clip], others: Sequence[Clip], names: Sequence[str]
) -> dict[str, Float[Tensor, " n"]]:
    """How far each clip's mean state moves to its other version, by layer: in units of the spread over all clips.

    1 means as far as two clips of the set usually are from one another, 0 that the layer does not notice.

    Args:
        model, names: as for ``pooled``. clips, others: as many, pair by pair; at least two.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clips = [tk.data.speech.say(word) for word in ("yes", "no", "go")]
        >>> higher = tk.sonification.edited(clips, semitones=3)
        >>> tk.sonification.change(hearing, clips, higher, ["blocks.0"])["blocks.0"].shape
        torch.Size([3])
    """
    if len(clips) != len(others) or len(clips) < 2:
        raise ValueError(f"clips are compared pair by pair, two pairs at least, got {len(clips)} and {len(others)}")
    one, other = (pooled(model, some, names) for some in (clips, others))
    found = {}
    for name in names:
        scale = deviations(one[name])
        a, b = one[name] / scale, other[name] / scale
        found[name] = (a - b).norm(dim=1) / torch.cdist(a, a).sum() * (len(a) * (len(a) - 1))
    return found
