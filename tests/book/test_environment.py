"""requirements.txt is the environment the tests run in, and pyproject.toml asks for no more than it gives."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distributions, version

import pytest
from packaging.requirements import Requirement

from tools import build_notebooks, pin_requirements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.book
ROOT = build_notebooks.ROOT
LINES = [
    line
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {extra: list(map(Requirement, asked)) for extra, asked in PROJECT["optional-dependencies"].items()}
DEPENDENCIES = list(map(Requirement, PROJECT["dependencies"]))
PINS = {pin_requirements.normalized(Requirement(line).name): Requirement(line) for line in LINES}


def installed(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def test_every_pin_is_exact():
    assert [line for line in LINES if not re.fullmatch(r"[\w.-]+==[\w.]+(; sys_platform .*)?", line)] == []


def test_pins_name_no_machine_and_not_the_project():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not re.search(r"file:|://|--index|--find-links|thesis[_-]kit", text)


def test_cuda_packages_are_for_linux_on_x86_only():
    cuda = [line for line in LINES if re.match(r"nvidia-|cuda-|triton", line)]
    assert cuda
    assert all(line.endswith(pin_requirements.CUDA_MARKER) for line in cuda)


def test_the_pins_are_what_is_installed():
    wanted = {name: pin for name, pin in PINS.items() if pin.marker is None or pin.marker.evaluate()}
    differing = {name: installed(name) for name, pin in wanted.items() if str(pin.specifier) != f"=={installed(name)}"}
    assert differing == {}, "run tools/pin_requirements.py after changing the environment"


def test_the_project_asks_for_lower_bounds_that_the_pins_meet():
    for requirement in [*DEPENDENCIES, *(r for extra in EXTRAS.values() for r in extra if r.name != PROJECT["name"])]:
        pin = str(PINS[pin_requirements.normalized(requirement.name)].specifier).removeprefix("==")
        assert requirement.specifier.contains(pin), requirement
        assert any(clause.operator == ">=" for clause in requirement.specifier), requirement


def test_what_is_installed_alone_is_the_version_that_the_zoo_knows():
    """It asks for packages that nobody here needs, so neither an extra nor a pin may bring it."""
    from thesis_kit.models import zoo

    package = zoo.entry("resemblyzer").package
    (alone,) = re.findall(r"^ALONE := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert package.install == f"pip install --no-deps {alone}"
    listed = {pin_requirements.normalized(r.name) for asked in EXTRAS.values() for r in asked}
    assert not {package.distribution, "librosa", "webrtcvad"} & (set(PINS) | listed)


def test_nothing_pinned_is_left_over():
    """Every pin is asked for by the project or by another pin."""
    needed = {pin_requirements.normalized(r.name) for r in DEPENDENCIES}
    listed = [r.name for extra in EXTRAS.values() for r in extra if r.name != PROJECT["name"]]
    needed |= set(map(pin_requirements.normalized, listed))
    requires = {
        pin_requirements.normalized(d.metadata["Name"]): {
            pin_requirements.normalized(Requirement(r).name) for r in d.requires or []
        }
        for d in distributions()
    }
    reached = set()
    while needed:
        name = needed.pop()
        reached.add(name)
        needed |= (requires.get(name, set()) & set(PINS)) - reached
    assert set(PINS) - reached - {"setuptools"} == set()  # setuptools builds the package


def test_extras_that_name_other_extras_name_those_there_are():
    for extra, asked in EXTRAS.items():
        assert {name for r in asked if r.name == PROJECT["name"] for name in r.extras} <= set(EXTRAS) - {extra}


def test_a_missing_package_is_looked_for_in_the_extra_that_brings_it():
    from thesis_kit import extras

    packages = {"sklearn": "scikit-learn", "open_clip": "open-clip-torch", "PIL": "pillow", "IPython": "ipython"}
    along = {"PIL": "matplotlib", "IPython": "ipywidgets"}  # what brings those that no extra lists
    for module, extra in extras.EXTRAS.items():
        listed = {pin_requirements.normalized(r.name) for r in EXTRAS[extra]}
        assert {pin_requirements.normalized(packages.get(module, module)), along.get(module)} & listed, module


def test_what_the_core_asks_for_is_light():
    """Someone who attacks a model of her own installs no drawing, no widgets and no data sets."""
    names = {pin_requirements.normalized(r.name) for r in DEPENDENCIES}
    assert names == {"torch", "numpy", "scipy", "safetensors", "jaxtyping", "filelock", "rich", "typer", "pyyaml"}


@pytest.mark.parametrize("name", sorted(PINS.keys() & {"torch", "torchvision", "torchaudio", "sphinx", "myst-nb"}))
def test_the_matched_families_are_the_designs(name):
    design = {"torch": "2.11.0", "torchvision": "0.26.0", "torchaudio": "2.11.0", "sphinx": "7.4.7", "myst-nb": "1.4.0"}
    assert str(PINS[name].specifier) == f"=={design[name]}"


def test_the_version_is_said_once():
    text = (ROOT / "thesis_kit" / "__init__.py").read_text(encoding="utf-8")
    (said,) = re.findall(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    assert f"version: {said}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {said}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
