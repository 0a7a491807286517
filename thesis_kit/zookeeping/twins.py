"""How chapter 6's twins are trained: one image tower, one stream of scenes, the same start, and different teachers.

``python -m thesis_kit.zookeeping.twins ARM:SEED …`` makes those that are not there yet, one after another, resuming
where it was stopped, and measures the weights as they are stored; without arguments it makes all of the four arms.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from safetensors.torch import load, save
from torch import nn

from thesis_kit.checks import check_count, choose
from thesis_kit.data.curriculum import Curriculum
from thesis_kit.data.parts import Stream
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.data.scenes.lexicon import vocabulary
from thesis_kit.data.scenes.pairs import LANGUAGE
from thesis_kit.data.scenes.teachers import HEADS, Attributes, Classes, Sentences, TaughtStream, Teacher
from thesis_kit.data.scenes.vocabulary import SHAPES
from thesis_kit.files import only_writer, write_together
from thesis_kit.models import anatomy, build, build_clip
from thesis_kit.models.clip_build import IMAGE_TOWER, PATCHES
from thesis_kit.randomness import mix_seed
from thesis_kit.training import AttributeTraining, Contrastive, Method, Natural, train
from thesis_kit.training.augmentation import AUGMENTATIONS
from thesis_kit.zookeeping.matching import Scores, measured

FOLDER = Path(__file__).resolve().parents[1] / "models" / "weights" / "twins"
_UNSAID = ("title", "seeds")
_PROBES = 4  # looks at how far training is
_TRAIN, _HEAD = 1, 61  # streams of a seed; the first is that of ``scenes.splits``


@dataclass(frozen=True)
class Twin:
    """Every setting that decides a twin's weights, beside the seed.

    Args:
        teacher: "classes", "class captions", "captions", "captions with exchanged ones" or "attributes".
        data: a name of ``pairs.LANGUAGE``. easy: share of the updates before it on ``scenes.v1-easy``.
        size: pixels of a side. tower: what the image tower has other than chapter 5's ViT, in timm's words.
        embed_dim, text_width, text_depth: of a pair. seeds: how many are made.
        updates, batch_size, lr, weight_decay, augment: as ``training.train`` takes them.
    """

    title: str
    teacher: str
    data: str = "scenes.v1-pairs"
    easy: float = 0.2
    size: int = 64
    tower: tuple[tuple[str, int], ...] = ()
    embed_dim: int = 64
    text_width: int = 96
    text_depth: int = 2
    updates: int = 3000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    augment: str = "blur and noise"  # none that changes colors or sides: captions name them
    seeds: int = 3

    def __post_init__(self) -> None:
        choose(self.teacher, TEACHERS, "teacher")
        choose(self.data, LANGUAGE, "distribution of pairs")
        choose(self.augment, AUGMENTATIONS, "augmentation")
        for name in ("updates", "batch_size", "seeds", "embed_dim", "text_width", "text_depth"):
            check_count(getattr(self, name), what=name)
        if not 0 <= self.easy < 1:
            raise ValueError(f"easy must lie in [0, 1), got {self.easy}")

    def settings(self) -> dict:
        """All that decides weights; wording and the number of seeds are not among it."""
        return {key: value for key, value in json.loads(json.dumps(asdict(self))).items() if key not in _UNSAID}


TEACHERS: dict[str, Callable[[], Teacher]] = {
    "classes": Classes,
    "class captions": lambda: Sentences("class"),
    "captions": Sentences,
    "captions with exchanged ones": lambda: Sentences(hard=True),
    "attributes": Attributes,
}

FOUR = {  # the arms of claims of information, concepts and robustness
    "labels": Twin("taught the class by labels", "classes", seeds=5),
    "class-captions": Twin("taught the class by captions", "class captions"),
    "captions": Twin("taught by full captions", "captions", seeds=5),
    "attributes": Twin("taught every attribute that captions name, by labels", "attributes"),
}
ARMS = FOUR | {
    "exchanged": Twin("taught by full captions and false ones near by", "captions with exchanged ones"),
    "biased": Twin("taught by full captions of scenes whose color follows the class", "captions",
                   "scenes.v1-pairs-biased"),
    "named-captions": Twin("taught by full captions of scenes with words", "captions", "scenes.v1-pairs-named"),
    "named-labels": Twin("taught the class by labels on scenes with words", "classes", "scenes.v1-pairs-named"),
}  # fmt: skip


def name_of(arm: str, seed: int) -> str:
    """What a twin's files are called."""
    return f"{choose(arm, list(ARMS), 'arm')}-{seed}"


def fresh(recipe: Twin, seed: int) -> nn.Module:
    """The network before training: all arms of a seed have the same blocks, and heads of their own."""
    tower = build(IMAGE_TOWER, n_classes=2, seed=seed, **{**PATCHES, "img_size": recipe.size, **dict(recipe.tower)})
    outputs = {"classes": len(SHAPES), "attributes": sum(HEADS.values())}.get(recipe.teacher, recipe.embed_dim)
    tower = anatomy.replace_head(tower, outputs, seed=mix_seed(seed, _HEAD))
    if recipe.teacher in ("classes", "attributes"):
        return tower
    own = {"embed_dim": recipe.embed_dim, "width": recipe.text_width, "depth": recipe.text_depth}
    return build_clip(image=tower, seed=seed, vocabulary=vocabulary(), **own)


def method_of(recipe: Twin) -> Method:
    """How the teacher is followed."""
    if recipe.teacher == "classes":
        return Natural()
    return AttributeTraining(tuple(HEADS.values())) if recipe.teacher == "attributes" else Contrastive()


def stream_of(recipe: Twin, seed: int) -> Stream:
    """What is seen, easy scenes first: the same images for every teacher."""
    teacher, own = TEACHERS[recipe.teacher](), mix_seed(seed, _TRAIN)
    easy, main = (
        TaughtStream(one, recipe.size, teacher, seed=own)
        for one in (DISTRIBUTIONS["scenes.v1-easy"], LANGUAGE[recipe.data])
    )
    first = round(recipe.easy * recipe.updates)
    return Curriculum([easy, main], [first]) if first else main


def make(
    recipe: Twin, seed: int, name: str, *, folder: str | Path = FOLDER, checkpoints: str | Path = ".zoo",
    say: Callable[[str], None] = print, n_test: int = 1000,
) -> dict:  # fmt: skip
    """Train the twin of a seed, measure what is stored, and write weights and a JSON beside them.

    Args:
        recipe, seed: what to train. name: of the files.
        folder: where to. checkpoints: where an interrupted run goes on from. say: called with a sentence now and then.
        n_test: scenes that scores are measured on.

    Returns:
        What the JSON holds: recipe, hashes, seconds and scores.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, about = (folder / f"{name}{ending}" for ending in (".safetensors", ".scores.json"))
    with only_writer(weights):
        model = fresh(recipe, seed)

        def progress(network: nn.Module) -> dict[str, float]:
            found = measured(network, recipe.teacher, recipe.data, recipe.size, n=min(n_test, 200))
            say(f"{name}: {found}")
            return found.values

        report = train(
            model, stream_of(recipe, seed), method_of(recipe), updates=recipe.updates, batch_size=recipe.batch_size,
            lr=recipe.lr, optimizer="adamw", weight_decay=recipe.weight_decay, seed=seed,
            augment=AUGMENTATIONS[recipe.augment], probe=progress, probe_every=-(-recipe.updates // _PROBES),
            checkpoint=Path(checkpoints) / f"{name}.pt", checkpoint_seconds=20, progress=False,
        )  # fmt: skip
        stored = save({key: value.half().contiguous() for key, value in model.state_dict().items()})
        model.load_state_dict(load(stored))
        scores: Scores = measured(model.eval(), recipe.teacher, recipe.data, recipe.size, n=n_test)
        told = {"seed": seed, "recipe": recipe.settings(), "data": LANGUAGE[recipe.data].data_hash(),
                "seconds": report.seconds, "sha256": sha256(stored).hexdigest(), "n": scores.n, "scores": scores.values,
                "history": report.history}  # fmt: skip
        write_together({about: json.dumps(told, indent=1).encode() + b"\n", weights: stored})
    return told


def loaded(arm: str, seed: int, *, folder: str | Path = FOLDER, recipe: Twin | None = None) -> nn.Module:
    """A twin that has been made, in evaluation mode.

    Raises:
        FileNotFoundError: it has not been made here; the sentence says how.
    """
    path = Path(folder) / f"{name_of(arm, seed)}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"there is no twin {arm} of seed {seed}: make it with python -m thesis_kit.zookeeping.twins {arm}:{seed}"
        )
    model = fresh(recipe or ARMS[arm], seed)
    model.load_state_dict(load(path.read_bytes()))
    return model.eval()


def wanted(named: list[str]) -> list[tuple[str, int]]:
    """Arms and seeds of a command line, ARM or ARM:SEED; those of the four arms unless any is named.

    Seed 0 of every arm comes first, so that a run that is stopped leaves whole comparisons.
    """
    found = []
    for one in named or FOUR:
        arm, _, number = one.partition(":")
        choose(arm, list(ARMS), "arm")
        found += [(arm, seed) for seed in ([int(number)] if number else range(ARMS[arm].seeds))]
    return sorted(found, key=lambda pair: pair[1])


def _main(arguments: list[str]) -> None:
    parser = ArgumentParser(prog="python -m thesis_kit.zookeeping.twins", description=__doc__)
    parser.add_argument("arms", nargs="*", help="ARM or ARM:SEED")
    parser.add_argument("--updates", type=int, help="fewer updates than the recipe's, for a trial")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where weights and scores go")
    given = parser.parse_args(arguments)
    shorter = {} if given.updates is None else {"updates": given.updates}
    for arm, seed in wanted(given.arms):
        name = name_of(arm, seed)
        if not (given.folder / f"{name}.scores.json").exists():
            told = make(replace(ARMS[arm], **shorter), seed, name, folder=given.folder)
            print(f"{name}: {told['scores']} after {told['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
