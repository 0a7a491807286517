"""Calls that keep what they do: resumed they give what an unbroken call gives, and nothing of anything else."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thesis_kit.attacks import pgd
from thesis_kit.certification import Certificates, Verification, certify, certify_nested
from thesis_kit.evaluation import RobustAccuracy, robust_accuracy
from thesis_kit.files import DamagedFile, OtherRun
from thesis_kit.sweep import sweep

N = 23


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(N, 3, 2, 2, generator=random)
    return x, network()(x).argmax(dim=1)


X, Y = images()


class Count:
    """What a model counts, and nothing that decides its answers."""

    def __init__(self, left: int):
        self.left = left


class Broken(nn.Module):
    """The network, which breaks off at some pass."""

    def __init__(self, left: int):
        super().__init__()
        self.network, self.count = network(), Count(left)

    def forward(self, x):
        self.count.left -= 1
        if self.count.left < 0:
            raise KeyboardInterrupt
        return self.network(x)


# Robust accuracy

ATTACKS = {"PGD": partial(pgd, eps=0.05, steps=3), "PGD margin": partial(pgd, eps=0.05, steps=2, loss="margin")}


def robust(model, out=None, **knobs):
    knobs = {"data": (X, Y), "attacks": ATTACKS, "batch_size": 5, **knobs}
    return robust_accuracy(model, knobs.pop("data"), knobs.pop("attacks"), out=out, progress=False, **knobs)


def same(one: RobustAccuracy, other: RobustAccuracy) -> bool:
    outcomes = zip(one.attacks, other.attacks, strict=True)
    return torch.equal(one.correct, other.correct) and all(
        (a.name, a.attacked, a.passes) == (b.name, b.attacked, b.passes) and torch.equal(a.survived, b.survived)
        for a, b in outcomes
    )


@pytest.mark.parametrize("independent", [False, True])
def test_robust_accuracy_goes_on_where_it_was_broken_off(tmp_path, independent):
    out, passes = tmp_path / "run.jsonl", []
    unbroken = robust(Broken(10**6), independent=independent)
    assert 0 < unbroken.robust_accuracy < 1
    for left in (12, 14, 20):
        with pytest.raises(KeyboardInterrupt) as caught:
            robust(Broken(left), out, independent=independent)
        assert caught.value.__notes__[0].startswith(f"{out} keeps ")
        assert [*tmp_path.iterdir()] == [out]
        passes.append(len(out.read_text().splitlines()))
    assert passes == sorted(passes)
    assert passes[0] > 1
    found = robust(Broken(10**6), out, independent=independent)
    assert same(found, unbroken)
    assert found.attacks[0].seconds > 0
    written = out.read_bytes()
    again = robust(Broken(5), out, independent=independent)  # five passes: for the accuracy without attack
    assert same(again, unbroken)
    assert [a.seconds for a in again.attacks] == [a.seconds for a in found.attacks]
    assert out.read_bytes() == written


def test_images_that_are_loaded_are_kept_too(tmp_path):
    out, loader = tmp_path / "run.jsonl", DataLoader(TensorDataset(X, Y), batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        robust(Broken(16), out, data=loader)
    assert same(robust(Broken(10**6), out, data=loader), robust(network(), data=(X, Y)))


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": network(1)}, "model was"),
        ({"data": (X.flip(0), Y.flip(0))}, "measured on other images or labels"),
        ({"data": (X, Y.flip(0))}, "measured on other images or labels"),
        ({"attacks": {"PGD": partial(pgd, eps=0.06, steps=3), "PGD margin": ATTACKS["PGD margin"]}},
         r"attacks\.PGD\.eps was '0\.05', is '0\.06'"),
        ({"attacks": {"PGD": ATTACKS["PGD"]}}, "order was"),
        ({"attacks": dict(reversed(ATTACKS.items()))}, "order was"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 4}, "batch_size was 5, is 4"),
        ({"independent": True}, "independent was False, is True"),
    ],
)  # fmt: skip
def test_robust_accuracy_of_something_else_is_refused(tmp_path, changed, said, finished):
    out = tmp_path / "run.jsonl"
    if finished:
        robust(network(), out)
    else:
        stopped, calls = network(), []
        with pytest.raises(KeyboardInterrupt):
            robust(stopped, out, attacks={**ATTACKS, "PGD margin": partial(interrupting, calls)})
        changed = {**changed}
        if "attacks" not in changed:
            changed["attacks"] = {**ATTACKS, "PGD margin": partial(interrupting, calls)}
    kept = out.read_bytes()
    with pytest.raises(OtherRun, match=said):
        robust(changed.get("model", network()), out, **{key: v for key, v in changed.items() if key != "model"})
    assert out.read_bytes() == kept


def interrupting(calls, model, x, y, *, generator):
    raise KeyboardInterrupt


def test_an_attack_that_nothing_tells_apart_is_refused(tmp_path):
    handle = (i for i in range(3))
    with pytest.raises(ValueError, match=r"nothing tells handle \(a generator\) apart from others of its kind"):
        robust(network(), tmp_path / "run.jsonl", attacks={"mine": lambda model, x, y, generator: handle and x})
    assert [*tmp_path.iterdir()] == []


def test_a_plain_function_is_a_model_that_can_be_told(tmp_path):
    def answering(model):
        return lambda x: model(x)

    robust(answering(network()), tmp_path / "run.jsonl")
    robust(answering(network()), tmp_path / "run.jsonl")
    with pytest.raises(OtherRun, match=r"model\.model was"):
        robust(answering(network(1)), tmp_path / "run.jsonl")


# Certificates

BUDGET = {"sigma": 0.3, "n0": 20, "n": 200, "alpha": 0.01}


def test_certificates_go_on_where_they_were_broken_off(tmp_path):
    out, unbroken = tmp_path / "run.jsonl", certify(network(), X, **BUDGET)
    for left in (8, 30):
        with pytest.raises(KeyboardInterrupt) as caught:
            certify(Broken(left), X, out=out, **BUDGET)
        assert caught.value.__notes__[0].endswith(f" of {N} items: the same call goes on from there")
    assert json.loads((tmp_path / "run.jsonl.shares" / "0-of-1").read_text().splitlines()[1])[0]["key"] == "0"
    found = certify(Broken(10**6), X, out=out, **BUDGET)
    assert [*found] == [*unbroken]
    assert found.budget == unbroken.budget
    assert [*tmp_path.iterdir()] == [out]
    assert [*certify(Broken(0), X, out=out, **BUDGET)] == [*unbroken]  # no pass is made


def test_several_budgets_are_kept_together(tmp_path):
    unbroken = certify_nested(network(), X, (100, 200), sigma=0.3, n0=20, alpha=0.01)
    for _ in range(2):
        found = certify_nested(network(), X, (200, 100), sigma=0.3, n0=20, alpha=0.01, out=tmp_path / "run.jsonl")
        assert {n: [*some] for n, some in found.items()} == {n: [*some] for n, some in unbroken.items()}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": network(1)}, "settings.model was"),
        ({"x": X.flip(0)}, "settings.images was"),
        ({"ids": torch.arange(N) + 1}, "settings.ids was"),
        ({"seed": 1}, "settings.seed was 0, is 1"),
        ({"sigma": 0.25}, "settings.budgets was"),
        ({"early_stop": False}, "settings.early_stop was True, is False"),
    ],
)
def test_certificates_of_something_else_are_refused(tmp_path, changed, said):
    out = tmp_path / "run.jsonl"
    certify(network(), X, out=out, **BUDGET)
    given = {"model": network(), "x": X, **BUDGET, **changed}
    with pytest.raises(OtherRun, match=said):
        certify(given.pop("model"), given.pop("x"), out=out, **given)


def test_each_process_does_its_share(tmp_path, monkeypatch):
    out = tmp_path / "run.jsonl"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert certify(network(), X, out=out, **BUDGET) is None
    monkeypatch.setenv("RANK", "0")
    assert [*certify(network(), X, out=out, **BUDGET)] == [*certify(network(), X, **BUDGET)]


# Sweeps


@pytest.mark.parametrize("wrap", [lambda model: lambda i: {"y": model(X[i : i + 1]).sum().item()},
                                  lambda model: partial(asked, model), lambda model: Asking(model).ask])  # fmt: skip
def test_a_sweep_over_another_network_is_refused_without_a_word_in_the_settings(tmp_path, wrap):
    path, items = tmp_path / "run.jsonl", {"a": 0, "b": 1}
    first = sweep(items, wrap(network()), path, settings={"n": 1})
    assert sweep(items, wrap(network()), path, settings={"n": 1}) == first
    with pytest.raises(OtherRun, match=r"\(work\..* was .*, is .*\): name another file"):
        sweep(items, wrap(network(1)), path, settings={"n": 1})


def asked(model, i):
    return {"y": model(X[i : i + 1]).sum().item()}


class Asking:
    def __init__(self, model):
        self.model = model

    def ask(self, i):
        return asked(self.model, i)


def test_a_sweep_over_other_items_of_the_same_names_is_refused(tmp_path):
    sweep({"a": X[0], "b": X[1]}, total, tmp_path / "run.jsonl")
    with pytest.raises(OtherRun, match="items was"):
        sweep({"a": X[0], "b": X[2]}, total, tmp_path / "run.jsonl")


def total(x):
    return {"y": float(x.sum())}


def test_a_sweep_that_cannot_know_what_it_belongs_to_is_refused(tmp_path):
    handle = (i for i in range(3))
    said = r"nothing tells handle \(a generator\) apart .* say in settings .* in identity"
    with pytest.raises(ValueError, match=said):
        sweep({"a": 0}, lambda i: {"y": next(handle)}, tmp_path / "run.jsonl")
    assert sweep({"a": 0}, lambda i: {"y": next(handle)}, tmp_path / "run.jsonl", identity="numbers")[0]["y"] == 0


# Values that are saved


VALUES = [
    lambda: robust(network()),
    lambda: certify(network(), X, **BUDGET),
    lambda: Verification(torch.tensor([True, False, True]), 0.05, "ibp"),
]


@pytest.mark.parametrize("make", VALUES)
def test_a_value_is_saved_loaded_and_printed_as_a_table(tmp_path, make):
    value, path = make(), tmp_path / "value.json"
    value.save(path)
    loaded = type(value).load(path)
    assert str(loaded) == str(value)
    assert loaded.record() == value.record()
    assert len(str(value).splitlines()) >= 3
    value.save(path)
    assert [*tmp_path.iterdir()] == [path]


def test_what_is_loaded_is_what_was_saved(tmp_path):
    found = robust(network())
    found.save(tmp_path / "r.json")
    loaded = RobustAccuracy.load(tmp_path / "r.json")
    assert same(loaded, found)
    assert loaded.interval == found.interval
    certificates = certify(network(), X, **BUDGET)
    certificates.save(tmp_path / "c.json")
    assert [*Certificates.load(tmp_path / "c.json")] == [*certificates]


def test_values_that_are_not_what_was_saved_are_refused(tmp_path):
    path = tmp_path / "value.json"
    Verification(torch.tensor([True, False, True]), 0.05, "ibp").save(path)
    with pytest.raises(DamagedFile, match=r"value\.json holds Verification, not Certificates"):
        Certificates.load(path)
    path.write_text(path.read_text().replace("101", "111"))
    with pytest.raises(DamagedFile, match=r"value\.json was altered"):
        Verification.load(path)
    with pytest.raises(FileNotFoundError):
        Verification.load(tmp_path / "nothing.json")


def test_a_verification_prints_shares_of_both_kinds():
    said = str(Verification(torch.tensor([True] * 3 + [False]), 0.05, "ibp")).splitlines()
    assert said[0] == "ℓ∞ boxes of radius 0.05, bound ibp"
    assert said[1].split()[:6] == ["verified", "3", "of", "4", "75.0%", "[30.1,"]
    assert said[2].split()[:7] == ["verified", "error", "1", "of", "4", "25.0%", "[4.6,"]
