"""What importing the package costs, and what works without the packages that only a part of it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from thesis_kit.extras import EXTRAS, MissingPackage, missing, needs

HEAVY = {"torchvision", "scipy.stats", "sklearn", "matplotlib", "ipywidgets", "IPython", "timm"}
LEFT_OUT = sorted({*EXTRAS, "typer", "rich", "yaml"})
ON_A_SMALL_MODEL = """
import torch, thesis_kit as tk
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
adversarial = tk.attacks.pgd(model, x, y, eps=8 / 255, steps=3)
assert 0.03 < (adversarial - x).abs().max() <= 8 / 255 + 1e-6
part = tk.data.Part(x, y, torch.arange(4))
print(tk.train(model, part, tk.training.Free(eps=0.1, replays=2), updates=4, lr=0.1, batch_size=4).updates)
print(tk.robust_accuracy(model, part, tk.evaluation.strong_attacks(eps=0.1, queries=5)))
print(tk.certification.certify(model, x, sigma=0.1, n=50).radii)
print(tk.certification.verified_error(model, x, y, eps=0.01))
print(tk.data.load("scenes.v1-a", size=16, n_train=1, n_validation=1, n_test=1).test.x.shape)
print(tk.zoo.load("resnet-scenes-a-natural").training)
"""


def run(code: str, *, without: list[str] = ()) -> str:
    """Run code in a new process in which some packages cannot be imported."""
    block = f"import sys\nfor name in {list(without)}: sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_yet():
    assert run("import thesis_kit; print('torch' in sys.modules, 'numpy' in sys.modules)") == "False False\n"


def test_every_public_name_is_there_whichever_is_asked_for_first():
    code = """
import os, sys, torch, thesis_kit as tk
for name in tk.__all__:
    if (child := os.fork()) == 0:
        os._exit(getattr(tk, name).__name__.rpartition(".")[2] != name)
    assert os.waitpid(child, 0)[1] == 0, name
"""
    run(code)


def test_public_names_are_what_they_are_called_there_are_no_others_and_all_load_nothing_heavy():
    code = """
import sys, thesis_kit as tk
for name in tk.__all__: getattr(tk, name)
print(*sys.modules, sep="\\n")
from thesis_kit.training import train
from thesis_kit import data, inversion, models
assert tk.train is train and tk.build is models.build and tk.zoo is models.zoo and tk.data is data
assert tk.inversion is inversion and tk.Classifier is models.Classifier
assert set(tk.__all__) <= set(dir(tk))
assert tk.__getattr__ and not hasattr(tk, "nothing")
"""
    assert HEAVY & set(run(code).split()) == set()


def test_ones_own_model_needs_none_of_the_optional_packages():
    said = run(ON_A_SMALL_MODEL, without=LEFT_OUT)
    assert "worst case" in said
    assert said.splitlines()[-1] == "False"


MISSED = [
    ("tk.data.digits()", "sklearn", "data"),
    ("tk.data.cifar10()", "torchvision", "data"),
    ("tk.data.fashion_mnist()", "torchvision", "data"),
    ("tk.data.imagenette()", "torchvision", "data"),
    ("tk.build('resnet18')", "timm", "timm"),
    ("tk.build('small_mixer')", "timm", "timm"),
    ("tk.build('stem_vit')", "timm", "timm"),
]


def test_what_is_missing_is_named_with_the_extra_that_brings_it():
    """Each call in a child of one process, in which only what the package always needs was imported."""
    code = """
import os, sys, torch, thesis_kit as tk
tk.build, tk.data
for call, package in CALLS:
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        sys.modules[package] = None
        try: eval(call)
        except ImportError as error: print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    said = run(f"CALLS = {[(call, package) for call, package, _ in MISSED]}\n{code}")
    assert said.splitlines() == [
        f"the package {package} is not installed and is needed here: install it, or thesis_kit with the extra that "
        f'brings it: pip install ".[{extra}]" in its checkout'
        for _, package, extra in MISSED
    ]


def test_every_module_that_needs_a_missing_package_names_its_extra():
    code = """
import importlib, pkgutil, thesis_kit
from thesis_kit.extras import MissingPackage
for module in pkgutil.walk_packages(thesis_kit.__path__, "thesis_kit.", onerror=lambda name: None):
    if not module.name.endswith("__main__"):
        try: importlib.import_module(module.name)
        except MissingPackage as error: print(module.name)
"""
    said = run(code, without=sorted(EXTRAS)).split()
    assert "thesis_kit.show.figures" in said
    assert {name.split(".")[1] for name in said} <= {"show", "chapters"}  # what computes can always be imported


def test_a_package_that_is_there_but_lacks_something_says_its_own_sentence(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found") as caught:
        needs("half_there")
    assert not isinstance(caught.value, MissingPackage)
    with pytest.raises(MissingPackage, match=r"nowhere_to_be_found is not installed and is needed here: install it$"):
        needs("nowhere_to_be_found")
    assert missing("x", "show").endswith('pip install ".[show]" in its checkout')
