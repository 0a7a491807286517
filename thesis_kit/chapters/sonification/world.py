"""What chapter 7's arms start from: clips of which everything is known, and one recognizer, trained or not.

A recognizer that is not a cohort's is the same for all seeds. Its twin has the architecture and random weights of the
seed's own; what the front end takes from clips, and the statistics of normalizations, it has of real clips too, so that
nothing but training tells the two apart.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from thesis_kit.chapters.world import World as Shared
from thesis_kit.data.speech import Clip, crossed, phrases, say_all, together
from thesis_kit.data.speech.synthesizer import Utterance
from thesis_kit.models import zoo
from thesis_kit.models.kinds import KINDS
from thesis_kit.randomness import mix_seed

_WEIGHTS = 701  # the stream of a seed for random weights
_STATISTICS = 64  # clips that an untrained network takes its statistics from


class World(Shared):
    """Clips, which are the same for all networks, and the seed's network."""

    @cached_property
    def subject(self) -> nn.Module:
        """The network that the arm asks: a trained recognizer, or its architecture with random weights."""
        s = self.settings
        if s.untrained:
            return untaught(s.member, mix_seed(self.seed, _WEIGHTS)).to(self.device)
        return taught(s.member, self.seed).to(self.device)

    @cached_property
    def clips(self) -> list[Clip]:
        """Every word by every voice at every pitch; voices slowest, pitches fastest."""
        s = self.settings
        return said(crossed(s.words, s.voices, s.pitches, (s.rate,)))


def said(utterances: list[Utterance]) -> list[Clip]:
    """Clips of utterances."""
    return say_all(utterances, progress=False)


def taught(member: str, seed: int) -> nn.Module:
    """A trained network; of a cohort that of a seed, and that of seed 0 is the member itself."""
    return zoo.load(member, seed=seed or None)


def untaught(member: str, seed: int) -> nn.Module:
    """The architecture of a member with random weights of a seed, and with the statistics of clips."""
    about = zoo.entry(member)
    network = KINDS[about.kind].build(about, seed)
    x, lengths = together([clip.waveform for clip in said(phrases("train", _STATISTICS))])
    if hasattr(network.front, "fit"):
        network.front.fit(x, lengths)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    network.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        network(x, lengths)
    return network.eval()
