"""Chapter 3's data and networks of one seed: trained with the best of an arm's settings, and the natural one's twin.

What is tried is judged on validation images, by accuracy or under a *weak* attack: this is how such methods came to
look robust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

from thesis_kit import training
from thesis_kit.chapters import world
from thesis_kit.chapters.tasks import Task
from thesis_kit.chapters.world import scenes_group
from thesis_kit.checks import NonFiniteOutput
from thesis_kit.data import Part, Splits
from thesis_kit.data.digits import test_group as digits_group
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.evaluation import accuracy, weak_attack
from thesis_kit.models import Classifier, build
from thesis_kit.passes import Passes

Setting = Mapping[str, float]  # lr, and as the arm has them weight_decay, sigma, step_size, and the strength of a term
TERMS = {
    "alpha": training.LabelSmoothing,
    "beta": training.LogitSqueezing,
    "similarity": training.LogitSimilarity,
    "pairing": training.CleanLogitPairing,
}
TRAINING = (
    "data", "data_options", "n_classes", "model", "model_options", "eps", "updates", "batch_size", "weight_decay",
)  # fmt: skip
_TWIN = 31  # a stream of a seed


def method_of(setting: Setting, eps: float) -> tuple[training.Method, list]:
    """How to train with a setting: the method, and the terms beside cross-entropy."""
    if "step_size" in setting:
        method = training.PGD(eps, steps=7, step_size=setting["step_size"] * eps)
    else:
        method = training.Gaussian(setting["sigma"]) if "sigma" in setting else training.Natural()
    return method, [term(setting[name]) for name, term in TERMS.items() if name in setting]


@dataclass
class Made:
    """A trained network, what made it, and what that took."""

    model: Classifier
    setting: dict[str, float]
    passes: Passes
    updates: int
    seconds: float
    trials: list[dict] = field(default_factory=list)


class World(world.World):
    """Data and networks of one seed."""

    @cached_property
    def splits(self) -> Splits:
        """The task."""
        return self.loaded(self.settings.data, self.settings.data_options)

    @property
    def test(self) -> Part:
        """The seed's own test images."""
        part, n = self.splits.test, self.settings.images
        if n is None:
            return part
        if (self.seed + 1) * n > len(part):
            raise ValueError(f"seed {self.seed} has no block of {n} test images: enlarge n_test")
        return part[self.seed * n : (self.seed + 1) * n]

    @property
    def group(self) -> str:
        """The name of these images."""
        s = self.settings
        if s.data == "digits":
            return digits_group(self.seed)
        drawn = s.data in DISTRIBUTIONS
        name = scenes_group(Task(s.data, s.n_classes, s.data_options), self.seed) if drawn else s.data
        return f"{name}/block {self.seed}"

    def made(self, grids: Sequence[Sequence[Setting]], *, by: str) -> Made:
        """The best network of one or several grids of settings, each chosen on validation images and made once.

        ``by`` is "accuracy", or "weak" for accuracy under the weak attack. Of one setting nothing is chosen.
        """
        found = [self._best(grid, by) for grid in grids]
        if len(found) == 1:
            return found[0]
        return replace(max(found, key=_validation), trials=[trial for made in found for trial in made.trials])

    def _best(self, grid: Sequence[Setting], by: str) -> Made:
        make = (lambda: self.fit(grid[0])) if len(grid) == 1 else (lambda: self._choose(grid, by))
        return self._kept("network", make, tried=grid, by=by)

    def twin(self, ordinary: Sequence[Setting]) -> Classifier:
        """A network trained as the ordinary one is, from another seed: where transferred examples are made."""
        setting = self.made([ordinary], by="accuracy").setting
        return self._kept("twin", lambda: self.fit(setting, seed=self.stream(_TWIN)), tried=ordinary).model

    def _kept(self, what: str, make: Callable[[], Made], **more: object) -> Made:
        """What ``make`` returns, made once and kept between processes."""

        def plainly() -> dict:
            made = make()
            return {**vars(made), "model": made.model.state_dict(), "passes": asdict(made.passes)}

        kept = self.memory.recall_tensors(self.about(what, *TRAINING, **more), plainly)
        model = self._network(self.seed)
        model.load_state_dict(kept["model"])
        return Made(**{**kept, "model": model.eval(), "passes": Passes(**kept["passes"])})

    def fit(self, setting: Setting, *, seed: int | None = None) -> Made:
        """A network trained with one setting."""
        s, seed = self.settings, self.seed if seed is None else seed
        model = self._network(seed)
        method, terms = method_of(setting, s.eps)
        report = training.train(
            model, self.splits.train, method, terms=terms, updates=s.updates, batch_size=s.batch_size,
            lr=setting["lr"], weight_decay=setting.get("weight_decay", s.weight_decay), seed=seed, progress=False,
        )  # fmt: skip
        return Made(model.eval(), dict(setting), report.passes, report.updates, report.seconds)

    def _network(self, seed: int) -> Classifier:
        s = self.settings
        shape = {"n_classes": s.n_classes, "in_channels": self.splits.test.x.shape[1]}
        return build(s.model, seed=seed, **shape, **s.model_options).to(self.device)

    def _choose(self, grid: Sequence[Setting], by: str) -> Made:
        """The best of a grid, with the record of all its trials."""
        best, trials = None, []
        for setting in grid:
            try:
                made = self.fit(setting)
                score = self._score(made.model, by)
            except NonFiniteOutput:
                trials.append({**setting, "validation": -1.0, "diverged": True})
                continue
            trials.append({**setting, "validation": score, "diverged": False})
            if best is None or score > best[0]:
                best = score, made
        if best is None:
            raise NonFiniteOutput(f"training diverged with all of {len(grid)} settings: add milder ones to the table")
        best[1].trials = trials
        return best[1]

    def _score(self, model: Classifier, by: str) -> float:
        validation = self.splits.validation
        if by == "accuracy":
            return accuracy(model, validation)
        return self.attacked(model, validation, weak_attack(self.settings.eps)).robust_accuracy


def _validation(made: Made) -> float:
    return max((trial["validation"] for trial in made.trials), default=0.0)
