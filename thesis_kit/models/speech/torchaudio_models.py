"""wav2vec 2.0 and its kin (HuBERT, WavLM) as torchaudio has them, by its own names: waveforms to states or letters.

Baevski et al., NeurIPS 2020. The networks and their weights are torchaudio's; here they get the book's manners: one
tensor comes out, layers go by name from the first convolution to the last block, padding is told by its zeros, and a
recognizer of English writes in the book's letters. Weights come from the network once and lie in torch's cache then.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thesis_kit.checks import choose
from thesis_kit.connection import reachable
from thesis_kit.data.speech.alphabet import BLANK, TOKENS
from thesis_kit.extras import needs
from thesis_kit.files import DamagedFile
from thesis_kit.models.pretrained import WeightsUnavailable
from thesis_kit.models.speech.jasper import check_waveforms, ends_of
from thesis_kit.models.speech.spectra import RATE

_HOST = "https://download.pytorch.org/torchaudio/models/"
_SILENT = {"'"}  # letters of a recognizer that the book's alphabet leaves out
_MAKERS = ("wav2vec2_", "hubert_", "wavlm_")


class Wav2Vec2(nn.Module):
    """Waveforms (n, t) in [−1, 1] at 16 kHz to states (n, steps, width), or to logits of letters, a step each 20 ms.

    Args:
        model: ``torchaudio.models.Wav2Vec2Model``: waveforms and lengths to a pair of outputs and their lengths.
        labels: what its outputs stand for, the blank first. With the English alphabet they come in the order of
            ``data.speech.TOKENS`` (n, steps, 28), so that ``transcribe`` and ``sonification.targeted`` can ask it; an
            apostrophe counts as a blank. Others stay as they are.
        normalized: whether the waveform is brought to mean 0 and deviation 1 first, as some networks were trained.

    Exact zeros at a clip's end count as what it was padded with, where ``lengths`` are not given. Attention passes them
    by; the first normalization of the *base* networks, over all of a clip's time, does not.

    Raises:
        TypeError, ValueError: when called, as ``check_waveforms``; a clip of fewer samples than make a step.

    Examples:
        >>> import torchaudio
        >>> from thesis_kit.models.speech import Wav2Vec2
        >>> convolutions = [(8, 10, 5), (8, 8, 8), (8, 8, 8)]
        >>> sizes = [8, 0.1, 16, 4, 2, 2, 0.1, 16, 0.0, 0.1, False, 0.05, None]
        >>> inner = torchaudio.models.wav2vec2_model("group_norm", convolutions, False, *sizes)
        >>> hearing = Wav2Vec2(inner).eval()
        >>> hearing(torch.zeros(2, 16_000)).shape
        torch.Size([2, 49, 8])
    """

    def __init__(self, model: nn.Module, labels: tuple[str, ...] = (), *, normalized: bool = False):
        super().__init__()
        self.model, self.normalized = model, normalized
        order = _order(labels)
        self.register_buffer("order", order, persistent=False)
        if order is not None:
            self.tokens = TOKENS

    def forward(self, x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n s w"]:
        check_waveforms(x)
        if x.shape[1] < self.least:
            raise ValueError(f"a clip must last {self.least} samples or more, got {x.shape[1]}: pad it with silence")
        lengths = (ends_of(x) if lengths is None else lengths).clamp(min=self.least)
        padded = bool((lengths < x.shape[1]).any())
        x = _standard(x, lengths) if self.normalized else x
        heard = (self.model(x, lengths) if padded else self.model(x))[0]
        return heard if self.order is None else _in_our_letters(heard, self.order)

    @property
    def layers(self) -> list[str]:
        """Layers from the first convolution to the last block."""
        blocks = len(self.model.encoder.transformer.layers)
        return [
            *(f"model.feature_extractor.conv_layers.{number}.conv" for number in range(len(self._convolutions()))),
            *(f"model.encoder.transformer.layers.{number}.residual" for number in range(blocks)),
        ]

    def steps(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """How many steps clips of these lengths in samples have."""
        for kernel, stride in self._convolutions():
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths.clamp(min=0)

    @property
    def least(self) -> int:
        """Samples of which one step is made."""
        samples = 1
        for kernel, stride in reversed(self._convolutions()):
            samples = (samples - 1) * stride + kernel
        return samples

    def _convolutions(self) -> list[tuple[int, int]]:
        """Kernel and stride of the convolutions that read the waveform."""
        layers = self.model.feature_extractor.conv_layers
        return [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in layers]


def _standard(x: Float[Tensor, "n t"], lengths: Int[Tensor, " n"]) -> Float[Tensor, "n t"]:
    """Waveforms of mean 0 and deviation 1 over their lengths, and zeros behind; each by itself, where torchaudio's own
    takes a batch as one."""
    inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    x = (x - (x * inside).sum(dim=1, keepdim=True) / lengths[:, None]) * inside
    return x / (x.square().sum(dim=1, keepdim=True) / lengths[:, None] + 1e-5).sqrt()


def _order(labels: tuple[str, ...]) -> Int[Tensor, " k"] | None:
    """For every label the number of the book's token that it stands for; None where an alphabet is another one."""
    ours = {" ": "|", **{letter: letter for letter in TOKENS if letter.strip()}}
    number = {theirs: TOKENS.index(token) for token, theirs in ours.items()}
    spelled = [label.lower() for label in labels[1:]]
    if not labels or set(spelled) - _SILENT != set(number):
        return None
    return torch.tensor([BLANK, *(number.get(label, BLANK) for label in spelled)])


def _in_our_letters(logits: Float[Tensor, "n s l"], order: Int[Tensor, " l"]) -> Float[Tensor, "n s k"]:
    """Logits by the book's tokens; where several labels stand for one, their probabilities are added."""
    columns = [logits[..., order == number].logsumexp(dim=-1) for number in range(len(TOKENS))]
    return torch.stack(columns, dim=-1)


def torchaudio_names() -> dict[str, Any]:
    """What ``from_torchaudio`` takes: torchaudio's pipelines by their names, and its architectures by theirs.

    Raises:
        MissingPackage: torchaudio is not installed; the sentence names the extra.

    Examples:
        >>> from thesis_kit.models.speech import torchaudio_names
        >>> {"WAV2VEC2_ASR_BASE_960H", "wav2vec2_base"} <= set(torchaudio_names())
        True
    """
    pipelines, models = needs("torchaudio.pipelines"), needs("torchaudio.models")
    found = {name: getattr(pipelines, name) for name in pipelines.__all__}
    known = {name: bundle for name, bundle in found.items() if isinstance(bundle, pipelines.Wav2Vec2Bundle)}
    makers = [name for name in models.__all__ if name.startswith(_MAKERS) and not name.endswith("_model")]
    return known | {name: getattr(models, name) for name in makers if inspect.isfunction(getattr(models, name))}


def from_torchaudio(name: str, *, seed: int = 0) -> Wav2Vec2:
    """A network of torchaudio in evaluation mode: a pipeline with its weights, or an architecture with random ones.

    Args:
        name: of a pipeline, such as "WAV2VEC2_ASR_BASE_960H" (which writes letters), "WAV2VEC2_BASE" or "HUBERT_BASE";
            or of an architecture, such as "wav2vec2_base".
        seed: of an architecture's random weights.

    Raises:
        UnknownName: torchaudio has nothing of that name; near names are offered.
        WeightsUnavailable: a pipeline's weights are not in torch's cache and cannot be downloaded.
        DamagedFile: what lies in the cache is something else.
        MissingPackage: torchaudio is not installed; the sentence names the extra.

    Examples:
        >>> from thesis_kit.models.speech import from_torchaudio, transcribe  # doctest: +SKIP
        >>> hearing = from_torchaudio("WAV2VEC2_ASR_BASE_960H")  # doctest: +SKIP
        >>> transcribe(hearing, tk.data.speech.say("good morning").waveform[None])  # doctest: +SKIP
        ['good morning']
    """
    known = torchaudio_names()
    one = known[choose(name, list(known), "network of torchaudio")]
    if inspect.isfunction(one):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Wav2Vec2(one()).eval()
    if one.sample_rate != RATE:
        raise ValueError(f"{name} takes sounds of {one.sample_rate:g} Hz, and clips have {RATE}: name another network")
    address = one._path if "://" in one._path else _HOST + one._path
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name
    if not kept.is_file() and not reachable(address):
        raise WeightsUnavailable(
            f"the weights of {name} are not on this machine and {urlsplit(address).hostname} does not answer: connect "
            f"to the network once, or put {kept.name} into the folder checkpoints of torch's cache"
        )
    labels = one.get_labels() if hasattr(one, "get_labels") else ()
    model = _loaded(one, name, kept)
    normalized = not hasattr(model, "feature_extractor")  # in a wrapper that does it
    return Wav2Vec2(model.model if normalized else model, tuple(labels), normalized=normalized).eval()


def _loaded(bundle: Any, name: str, kept: Path) -> nn.Module:
    """A pipeline's network, by torchaudio's own code; nothing that its file may hold is run."""
    try:
        return bundle.get_model(dl_kwargs={"weights_only": True})
    except OSError as error:
        raise WeightsUnavailable(f"{name} could not be loaded ({error}): connect to the network once") from error
    except Exception as error:  # the reader raises whatever a broken file leads it to
        raise DamagedFile(
            f"{kept.name} in torch's cache does not hold the weights of {name}: remove {kept} and load it again"
        ) from error
