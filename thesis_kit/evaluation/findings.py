"""What a masking report finds: signs of masked gradients and warnings, their thresholds, and how a person reads them.

The signs are those of Athalye, Carlini and Wagner (2018) and of Mosbach et al. (2018). The thresholds are ours and
stand below with their reasons; ``masking`` has the attacks.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import scipy
from torch import Tensor

from thesis_kit.checks import choose
from thesis_kit.evaluation.robust import AttackOutcome, RobustAccuracy
from thesis_kit.evaluation.surface import Surface

MARGIN, CHANCE = 0.05, 0.01  # what one attack must be ahead of another, in accuracy and in a one-sided sign test
LOSSES = 0.20  # the same for losses: on networks that mask nothing the margin is ahead of cross-entropy by up to 0.14
GAP = 0.10  # what a weak attack may leave to a strong one
LOST = 0.10  # share of images without any gradient that is a sign
ASTRAY = 0.25  # share of images for which a random direction does as well as the gradient's that is a sign
UNBOUNDED = 0.02  # share of images that may withstand an attack without bound
UNGUIDED = ("Square", "random points", "transfer")  # attacks that ask the model for no gradient
DRAWS = 16  # passes averaged where answers are random (expectation over transformation)
_WIDTH = 78  # of printed text, as many columns as a page of the book has
SIGNS = {
    "no gradients": "the gradient is zero or missing on many images",
    "unbounded attack fails": "an attack without any bound should turn every image and does not",
    "transfer wins": "examples made on another network turn more images than those made on this one",
    "gradient-free search wins": "an attack that asks for no gradient turns more images than one that follows it",
    "random points win": "random points of the ball turn more images than the gradient does",
    "gradient leads nowhere": "a random direction raises the loss as much as the gradient's",
    "loss matters": "attacks on another loss turn far more images than those on cross-entropy",
}
WARNINGS = {
    "more effort helps": "a weak attack leaves many images that a strong one turns",
    "random answers": "the same image gets different logits each time",
    "constant answers": "all images get the same logits, whatever they show",
    "no better than chance": "without any attack the answers are no better than chance, so there is nothing to lose",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is so (None where it could not be looked at), and the numbers that say so."""

    name: str
    found: bool | None
    evidence: str

    @property
    def meaning(self) -> str:
        """What it means if found."""
        return {**SIGNS, **WARNINGS}[self.name]


@dataclass(frozen=True)
class MaskingReport:
    """A diagnosis with its evidence; ``print`` it to read it, ``record()`` for JSON.

    ``robust`` has every attack's outcome image by image, each attack on all images, and the worst case; ``as_given`` is
    the accuracy under a weak attack (``weak_attack``) on the logits as they are, ``rescaled`` on the logits over their
    usual spread, which is ``scale``; ``by_scale`` the accuracy under PGD-20 on cross-entropy at other scales;
    ``surface`` the loss around some images. Without gradients these are None or empty.
    """

    eps: float
    norm: str
    robust: RobustAccuracy
    as_given: float | None
    rescaled: float | None
    scale: float
    by_scale: Mapping[float, float]
    findings: tuple[Finding, ...]
    surface: Surface | None = None

    def __getitem__(self, name: str) -> Finding:
        return choose(name, {finding.name: finding for finding in self.findings}, "finding")

    @property
    def masked(self) -> bool:
        """Whether any sign of masked gradients was found."""
        return any(finding.found for finding in self.findings if finding.name in SIGNS)

    @property
    def conclusion(self) -> str:
        """What to believe, in a few sentences."""
        low, high = self.robust.interval
        n = len(self.robust.correct)
        said = [
            f"At most {self.robust.robust_accuracy:.1%} of the images withstand changes of {self.eps:.4g} "
            f"({self.norm}): the worst case over {len(self.robust.attacks)} attacks (95% interval {low:.1%} to "
            f"{high:.1%}, {n} images)."
        ]
        signs = [finding for finding in self.findings if finding.found and finding.name in SIGNS]
        if self.as_given is not None and self.as_given - self.robust.robust_accuracy > MARGIN:
            said.append(f"A weak attack on the logits as they are would have said {self.as_given:.1%}.")
            if self.as_given - self.rescaled > MARGIN:
                said.append(
                    f"Part of that is their scale alone, {self.scale:.3g} times the usual: on rescaled logits the same "
                    f"attack says {self.rescaled:.1%}."
                )
        if signs:
            said.append(f"Signs of masked gradients: {'; '.join(finding.meaning for finding in signs)}.")
            said.append("Expect better attacks to lower the number further.")
        elif self["more effort helps"].found:
            said.append("No sign of masked gradients was found; it takes a strong attack to see how far they lead.")
        else:
            said.append("No sign of masked gradients was found.")
        if self["no gradients"].found:
            transferred = "transfer" in [outcome.name for outcome in self.robust.attacks]
            advice = "it is the twin that counts" if transferred else "give one that can be differentiated as `twin`"
            said.append(f"Attacks that follow gradients say nothing here: {advice}.")
        if self["random answers"].found:
            said.append(f"Its answers are random: attacks and accuracy are those of the mean over {DRAWS} passes.")
        if self["constant answers"].found:
            said.append("All images get the same logits: nothing was learned that could be attacked.")
        elif self["no better than chance"].found:
            said.append("Without any attack the model is no better than chance: its robustness means nothing.")
        return " ".join(said)

    def __str__(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        words = {True: "yes", False: "no", None: "?"}
        rows = [_wrapped(f"{f.name:<{width}}  {words[f.found]:<3}  ", f.evidence) for f in self.findings]
        scales = [f"{scale:g}: {accuracy:.0%}" for scale, accuracy in self.by_scale.items()]
        if scales:
            rows += ["", _wrapped("PGD-20 on cross-entropy, logits times  ", "  ".join(scales))]
        return "\n".join([str(self.robust), "", *rows, "", _wrapped("", self.conclusion)])

    def record(self) -> dict:
        """Everything but the images' loss surface, as JSON has it."""
        low, high = self.robust.interval
        return {
            "eps": self.eps,
            "norm": self.norm,
            "images": len(self.robust.correct),
            "clean_accuracy": self.robust.clean_accuracy,
            "robust_accuracy": {"value": self.robust.robust_accuracy, "low": low, "high": high},
            "weak_attack": {"logits as given": self.as_given, "logits rescaled": self.rescaled},
            "scale_of_logits": self.scale,
            "accuracy_by_scale": {f"{scale:g}": value for scale, value in self.by_scale.items()},
            "attacks": {a.name: _attack_record(a) for a in self.robust.attacks},
            "findings": {
                f.name: {"found": f.found, "meaning": f.meaning, "evidence": f.evidence} for f in self.findings
            },
            "masked": self.masked,
            "conclusion": self.conclusion,
        }


def _wrapped(head: str, text: str) -> str:
    """The text after a head, on as many lines as it takes, all of them to the right of the head."""
    indent = " " * len(head)
    lines = textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return head + "\n".join(lines).removeprefix(indent)


def _attack_record(outcome: AttackOutcome) -> dict:
    low, high = outcome.interval
    spent = {"forward": outcome.passes.forward_images, "backward": outcome.passes.backward_images}
    return {"accuracy": outcome.accuracy, "low": low, "high": high, "attacked": outcome.attacked, "passes": spent}


def findings_of(
    robust: RobustAccuracy, lost: float, unbounded: float | None, astray: float | None,
    effort: tuple[str, str],
) -> tuple[Finding, ...]:  # fmt: skip
    """Every sign and warning; ``effort`` names PGD on cross-entropy with few steps and with many."""
    weak, single = effort
    following = [outcome for outcome in robust.attacks if outcome.name not in UNGUIDED]
    guide = min(following, key=lambda outcome: outcome.accuracy).name if following else ""
    no_gradient = Finding("no gradients", lost >= LOST, f"{lost:.0%} of the images have no gradient")
    if unbounded is None:
        missing = (*SIGNS, "more effort helps")[1:]
        return no_gradient, *(Finding(name, None, "there is no gradient to follow") for name in missing)
    least = robust[weak].accuracy, robust.robust_accuracy
    return (
        no_gradient,
        Finding("unbounded attack fails", unbounded > UNBOUNDED, f"{unbounded:.1%} of the images withstand it"),
        _ahead("transfer wins", robust, ["transfer"], single),
        _ahead("gradient-free search wins", robust, ["Square"], guide),
        _ahead("random points win", robust, ["random points"], guide),
        _astray_finding(astray, robust.correct),
        _ahead("loss matters", robust, ["PGD margin", "PGD DLR"], single, by=LOSSES),
        Finding(
            "more effort helps",
            least[0] - least[1] >= GAP,
            f"{weak} leaves {least[0]:.1%}, the worst case {least[1]:.1%}",
        ),
    )


def chance(right: Tensor, n_classes: int) -> Finding:
    """Whether clean accuracy could be that of guessing."""
    luck = scipy.stats.binomtest(int(right.sum()), len(right), 1 / n_classes, alternative="greater").pvalue
    said = f"{right.double().mean().item():.1%} are right, chance is {1 / n_classes:.1%}"
    return Finding("no better than chance", bool(luck >= CHANCE), said)


def _astray_finding(astray: float | None, right: Tensor) -> Finding:
    if astray is None:
        why = "the loss is flat around every image" if right.any() else "no image is classified rightly"
        return Finding("gradient leads nowhere", None, why)
    return Finding("gradient leads nowhere", astray >= ASTRAY, f"it does for {astray:.0%} of the images")


def _ahead(name: str, robust: RobustAccuracy, others: list[str], usual: str, *, by: float = MARGIN) -> Finding:
    """Whether the best of other attacks leaves clearly fewer images than the usual one."""
    outcomes = {outcome.name: outcome for outcome in robust.attacks}
    if others[0] not in outcomes:
        return Finding(name, None, "no twin was given")
    best = min((outcomes[other] for other in others), key=lambda outcome: outcome.accuracy)
    mine, theirs = outcomes[usual].survived, best.survived
    only_theirs, only_mine = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    discordant = only_theirs + only_mine
    luck = scipy.stats.binomtest(only_theirs, discordant, alternative="greater").pvalue if discordant else 1.0
    ahead = outcomes[usual].accuracy - best.accuracy >= by and luck < CHANCE
    return Finding(name, bool(ahead), f"{best.name} leaves {best.accuracy:.1%}, {usual} {outcomes[usual].accuracy:.1%}")
