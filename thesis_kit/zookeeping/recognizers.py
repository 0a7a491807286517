"""How the cohort of small recognizers is trained: one recipe, ``speech.v1``, and one network a seed.

``python -m thesis_kit.zookeeping.recognizers SEED …`` makes those of the seeds that are not there yet, resuming where
it was stopped, and measures the weights as they are stored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load, save

from thesis_kit.data import Splits, speech
from thesis_kit.data.parts import Part
from thesis_kit.evaluation.word_errors import WordErrors, word_errors
from thesis_kit.files import only_writer, write_together
from thesis_kit.models.speech import Jasper, transcribe
from thesis_kit.training import train
from thesis_kit.training.ctc import CTC

FOLDER = Path(__file__).resolve().parents[1] / "models" / "weights"
SEEDS = 6


@dataclass(frozen=True)
class RecognizerRecipe:
    """Every setting that decides a recognizer's weights, beside the seed and the data.

    ``statistics`` is how many clips the front end's mean and deviation are taken from.
    """

    data: str = "speech.v1"
    updates: int = 1400
    batch_size: int = 32
    lr: float = 4e-3
    weight_decay: float = 1e-2
    statistics: int = 256


def fresh(seed: int) -> Jasper:
    """The network before training: its weights are the seed's, and its front end has no statistics yet."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Jasper()


def name_of(seed: int) -> str:
    """What the zoo calls the member of a seed: seed 0 stands for the cohort."""
    return "jasper-speech" if seed == 0 else f"jasper-speech-{seed}"


def make(
    seed: int, *, recipe: RecognizerRecipe | None = None, data: Splits | None = None, folder: str | Path = FOLDER,
    checkpoints: str | Path = ".zoo", say: Callable[[str], None] = print,
) -> dict:
    """Train the network of a seed, measure what is stored, and write weights and a JSON beside them.

    Args:
        seed: of weights and order. recipe: the settings. data: the splits; those of the recipe unless given.
        folder: where to. checkpoints: where an interrupted run goes on from. say: called with a sentence now and then.

    Returns:
        What the JSON holds: recipe, hashes, seconds, and word error rates by part.
    """
    recipe, folder = recipe or RecognizerRecipe(), Path(folder)
    weights, about = (folder / f"{name_of(seed)}{ending}" for ending in (".safetensors", ".scores.json"))
    with only_writer(weights):
        data = speech.splits(seed, name=recipe.data) if data is None else data
        model = fresh(seed)
        first = data.train.minibatch(0, recipe.statistics)
        model.front.fit(first.x, first.y.frames)

        def heard(network: torch.nn.Module) -> dict[str, float]:
            rate = errors(network, data.validation).rate
            say(f"{name_of(seed)}: {rate:.3f} word errors a word on the voices for choosing")
            return {"word errors": rate}

        report = train(
            model, data.train, CTC(), updates=recipe.updates, batch_size=recipe.batch_size, lr=recipe.lr,
            optimizer="adamw", weight_decay=recipe.weight_decay, seed=seed, probe=heard,
            probe_every=max(1, recipe.updates // 4), checkpoint=Path(checkpoints) / f"{name_of(seed)}.pt",
            checkpoint_seconds=20, progress=False,
        )  # fmt: skip
        stored = save({key: value.half() if value.is_floating_point() else value
                       for key, value in model.state_dict().items()})  # fmt: skip
        model.load_state_dict(load(stored))
        scores = {part: asdict(errors(model, getattr(data, part))) for part in ("validation", "test")}
        told = {"seed": seed, "recipe": asdict(recipe), "data": speech.data_hash().here, "seconds": report.seconds,
                "sha256": sha256(stored).hexdigest(), "word errors": scores}  # fmt: skip
        write_together({about: json.dumps(told, indent=1).encode() + b"\n", weights: stored})
    return told


def errors(model: torch.nn.Module, part: Part) -> WordErrors:
    """The word errors of a recognizer on a part of speech."""
    said = ["".join(speech.TOKENS[number] for number in tokens[:length].tolist())
            for tokens, length in zip(part.y.tokens, part.y.lengths, strict=True)]  # fmt: skip
    return word_errors(said, transcribe(model, part.x, part.y.frames))


if __name__ == "__main__":
    for wanted in map(int, sys.argv[1:]):
        if not (FOLDER / f"{name_of(wanted)}.scores.json").exists():
            print(make(wanted), flush=True)
