"""What a recognizer of speech hears, layer by layer: probes, pieces that excite its units, optimal sounds, metamers.

Everything takes any network from waveforms (n, t) in [−1, 1] at 16 kHz, and layers or sites by their names;
``layers(model)`` names some from the first to the last. ``data.speech`` makes clips of which everything is known.
"""

from thesis_kit.sonification.attacking import Misheard, targeted
from thesis_kit.sonification.changing import Metamers, change, edited, resynthesize
from thesis_kit.sonification.listening import Sounds, TopPiece, before_nonlinearity, cut, playable, sonify, top_segments
from thesis_kit.sonification.probes import Probe, one_shot, probe, voices_meet, within, without
from thesis_kit.sonification.states import Piece, layers, over_pieces, pieces, pooled, states

__all__ = [
    "Metamers", "Misheard", "Piece", "Probe", "Sounds", "TopPiece", "before_nonlinearity", "change", "cut", "edited",
    "layers", "one_shot", "over_pieces", "pieces", "playable", "pooled", "probe", "resynthesize", "sonify", "states",
    "targeted", "top_segments", "voices_meet", "within", "without",
]  # fmt: skip
