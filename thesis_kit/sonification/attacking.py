"""A sound that says something else to a recognizer than to a person: a targeted attack on CTC.

After Carlini and Wagner (IEEE SPW 2018): a perturbation within a bound is moved against the CTC loss of the text that
is to be heard, and whenever it is heard the bound shrinks, so that the quietest one is kept. Attacks on images here
take pixels in [0, 1]; this one takes waveforms in [−1, 1], of one clip, and ends where it has what it wants.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thesis_kit.asking import ask, borrowed
from thesis_kit.checks import check_count, check_eps
from thesis_kit.data.speech import Clip, decode, encode
from thesis_kit.models.speech import transcribe

_SHRINK = 0.8


@dataclass(frozen=True)
class Misheard:
    """``waveform`` (t,) is the clip and its perturbation; ``heard`` what the recognizer writes for it.

    ``linf`` is the perturbation's largest sample, ``snr`` the clip's power over its own in decibels, ``steps`` what was
    made, ``succeeded`` whether the text was heard.
    """

    waveform: Tensor
    heard: str
    linf: float
    snr: float
    steps: int
    succeeded: bool


def targeted(
    model: nn.Module, clip: Clip, text: str, *, eps: float = 0.05, steps: int = 300, lr: float = 0.1
) -> Misheard:
    """Perturb a clip until a recognizer of letters writes another text, as quietly as the steps allow.

    Args:
        model: waveforms (n, t) to logits (n, steps, 28), with ``steps``, as ``models.speech.Jasper``.
        clip: of 16 kHz. text: what is to be heard; letters and spaces.
        eps: largest change of a sample to begin with. steps: of Adam. lr: in shares of the bound.

    Raises:
        ValueError: a text that does not fit in the clip's steps, or with other letters; eps out of range.

    Examples:
        >>> hearing = tk.models.speech.Jasper(widths=(8, 8), kernels=(3, 5), first=8, last=8, bands=16).eval()
        >>> clip = tk.data.speech.say("yes")
        >>> tk.sonification.targeted(hearing, clip, "no", steps=1).waveform.shape == clip.waveform.shape
        True
    """
    check_eps(eps, norm="linf"), check_count(steps, what="steps")
    wanted, x = torch.tensor([encode(text)]), clip.waveform[None]
    text = decode(wanted[0].tolist())  # small letters and single spaces, as it is heard
    device = next(model.parameters()).device
    x, wanted = x.to(device), wanted.to(device)
    room = int(model.steps(torch.tensor([x.shape[1]]))[0])
    needed = wanted.shape[1] + int((wanted[0, 1:] == wanted[0, :-1]).sum())
    if not 1 <= needed <= room:
        raise ValueError(f"{text!r} needs {needed} steps and the clip has {room}: choose a shorter text")
    raw = torch.zeros_like(x, requires_grad=True)
    adam, best = torch.optim.Adam([raw], lr=lr), None
    with borrowed(model, "a targeted attack"):
        for _ in range(steps):
            moved = (x + eps * torch.tanh(raw)).clamp(-1, 1)
            logits = ask(model, moved).log_softmax(dim=2).transpose(0, 1)
            loss = F.ctc_loss(logits, wanted, (room,), (wanted.shape[1],), zero_infinity=True)
            raw.grad = torch.autograd.grad(loss, raw)[0]
            if transcribe(model, moved.detach())[0] == text:
                best, eps = moved.detach(), _SHRINK * min(eps, (moved.detach() - x).abs().max().item())
            adam.step()
    kept = moved.detach() if best is None else best
    return Misheard(kept[0].cpu(), transcribe(model, kept)[0], *_size(x, kept), steps, best is not None)


def _size(x: Float[Tensor, "1 t"], moved: Float[Tensor, "1 t"]) -> tuple[float, float]:
    """Largest change of a sample, and signal over perturbation in decibels."""
    change = moved - x
    ratio = x.square().sum() / change.square().sum().clamp_min(1e-20)
    return change.abs().max().item(), 10 * ratio.log10().item()
