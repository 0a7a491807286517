"""A training run that is interrupted, even by SIGKILL, and resumed ends with the weights of an unbroken one."""

from __future__ import annotations

import copy
import errno
import math
import os
import pickle
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from thesis_kit import files, training
from thesis_kit.data import Part, Stream, digits
from thesis_kit.files import checkpoints, writing
from thesis_kit.randomness import ImageRandom
from thesis_kit.training.augmentation import shift

METHODS = {
    "natural": training.Natural,
    "pgd-3": lambda: training.PGD(0.1, steps=3),
    "fgsm": lambda: training.fgsm(0.1),
    "fgsm-rs": lambda: training.fgsm_rs(0.1),
    "n-fgsm": lambda: training.n_fgsm(0.1),
    "free-4": lambda: training.Free(0.1, replays=4),
    "free-4 cold": lambda: training.Free(0.1, replays=4, warm_start=False),
}
UPDATES = 14  # not a multiple of 4: Free's last minibatch is replayed twice


def network(seed: int = 0) -> nn.Module:
    """With dropout, and with buffers: all that could be forgotten."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10)
        )


class Stop(Exception):
    """An interruption that no code expects."""


class Untouched:
    """An augmentation that changes nothing, and breaks off training where it is told to: the same one to a checkpoint,
    for what it counts is private."""

    def __init__(self, minibatches: float = math.inf, error: type[BaseException] = Stop):
        self._left, self._error = minibatches, error

    def __call__(self, x, random):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return x


stopping_after = Untouched


def train(model, method, checkpoint=None, **knobs) -> training.TrainingReport:
    usual = {"updates": UPDATES, "batch_size": 16, "lr": 0.05, "checkpoint_seconds": 0.0, "augment": Untouched()}
    knobs = {**usual, **knobs}
    data = knobs.pop("data", digits(0).train[:40])
    return training.train(model, data, method, checkpoint=checkpoint, **knobs)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", METHODS)
def test_interrupted_twice_and_resumed_ends_bit_for_bit_alike(name, optimizer, tmp_path):
    def probe(model):
        return {"bias": model[-1].bias[0].item()}

    knobs = {"optimizer": optimizer, "probe": probe, "probe_every": 5}
    unbroken, file = network(), tmp_path / "run.pt"
    expected = train(unbroken, METHODS[name](), **knobs)
    for _ in range(2):
        with pytest.raises(Stop):
            train(network(), METHODS[name](), file, augment=stopping_after(1), **knobs)
    resumed, left = network(), -(-UPDATES // METHODS[name]().replays) - 2
    knobs["augment"] = stopping_after(left)  # it makes no more minibatches than are left
    torch.manual_seed(99)
    report = train(resumed, METHODS[name](), file, **knobs)
    assert same_weights(unbroken, resumed)
    assert report.passes == expected.passes
    assert report.history == expected.history
    assert report.updates == UPDATES
    assert report.seconds > 0


def test_an_interruption_inside_a_minibatch_costs_that_minibatch_only(tmp_path):
    """Free's replays are broken off in the third of four; the file still holds the minibatch before."""
    unbroken, model, file = network(), network(), tmp_path / "run.pt"
    train(unbroken, METHODS["free-4"]())
    calls = [0]

    def third_replay(module, inputs):
        calls[0] += 1
        if calls[0] == 7:
            raise Stop

    model.register_forward_pre_hook(third_replay)
    with pytest.raises(Stop):
        train(model, METHODS["free-4"](), file)
    resumed = network()
    resumed.register_forward_pre_hook(third_replay)
    train(resumed, METHODS["free-4"](), file)
    assert same_weights(unbroken, resumed)


def interrupting(model: nn.Module, passes: int, stop: type[BaseException]) -> nn.Module:
    """The model, interrupted inside its forward pass, after normalization has taken in the minibatch."""
    calls = [passes]

    def interrupt(module, inputs, output):
        calls[0] -= 1
        if calls[0] < 0:
            raise stop

    model[3].register_forward_hook(interrupt)
    return model


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["natural", "pgd-3", "free-4"])
def test_an_interruption_anywhere_keeps_the_minibatches_before(name, stop, tmp_path):
    """Long before the file is due to be written; the model is in the middle of an update, and what is kept is not."""
    unbroken, file = network(), tmp_path / "run.pt"
    passes = {"natural": 1, "pgd-3": 4, "free-4": 4}[name]  # a minibatch
    updates = {"free-4": 4}.get(name, 1)
    train(unbroken, METHODS[name]())
    for kept in (1, 2):
        with pytest.raises(stop) as caught:
            train(interrupting(network(), passes + passes // 2, stop), METHODS[name](), file, checkpoint_seconds=3600)
        said = f"{file} keeps {kept * updates} of 14 updates: the same call goes on from there"
        assert caught.value.__notes__ == [said]
        assert [*tmp_path.iterdir()] == [file]
    resumed = interrupting(network(), 100, stop)
    train(resumed, METHODS[name](), file)
    assert same_weights(unbroken, resumed)


def test_what_was_not_done_is_not_said_to_be_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        train(network(), None, tmp_path / "run.pt", augment=Untouched(0, KeyboardInterrupt))
    assert not hasattr(caught.value, "__notes__")
    assert [*tmp_path.iterdir()] == []


def test_an_interruption_on_a_full_disk_says_what_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    with pytest.raises(KeyboardInterrupt) as caught:
        train(network(), None, tmp_path / "run.pt", augment=Untouched(2, KeyboardInterrupt), checkpoint_seconds=3600)
    assert [note.partition(": could not write")[0] for note in caught.value.__notes__] == [
        f"{tmp_path / 'run.pt'} does not hold what was done last"
    ]
    assert [*tmp_path.iterdir()] == []


def test_the_same_call_with_the_model_at_hand_goes_on_and_with_a_touched_one_does_not(tmp_path):
    """In a notebook the cell that was interrupted is run again, and the model is no longer where it started."""
    unbroken, model, file = network(), network(), tmp_path / "run.pt"
    train(unbroken, None)
    with pytest.raises(KeyboardInterrupt):
        train(model, None, file, augment=Untouched(5, KeyboardInterrupt), checkpoint_seconds=3600)
    touched = copy.deepcopy(model)
    with torch.no_grad():
        touched[1].weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"another run \(start was"):
        train(touched, None, file)
    train(model, None, file)
    assert same_weights(unbroken, model)
    train(model, None, file)  # finished: read again
    with torch.no_grad():
        model[1].weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"another run \(start was"):
        train(model, None, file)


class Noisy(Dataset):
    """Random transforms are drawn anew in every epoch."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        part = digits(0).train
        return part.x[index] * torch.rand(()), int(part.y[index])


def test_random_transforms_of_a_data_set_resume_too(tmp_path):
    unbroken, resumed, file = network(), network(), tmp_path / "run.pt"
    train(unbroken, None, data=Noisy())
    with pytest.raises(Stop):
        train(resumed, None, file, data=Noisy(), augment=stopping_after(5))
    train(resumed, None, file, data=Noisy())
    assert same_weights(unbroken, resumed)


class Rendered(Stream):
    """Noise with labels, drawn anew from the two numbers of every minibatch."""

    def __init__(self, name: str = "noise.v1"):
        self.name, self.asked = name, []

    def minibatch(self, position, size):
        self.asked.append(position)
        random = ImageRandom(position, torch.arange(size))
        return Part(random.uniform(1, 8, 8), random.integers(high=10), torch.arange(size))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_short_formats_resume_bit_for_bit_too(precision, tmp_path):
    unbroken, resumed, file = network(), network(), tmp_path / "run.pt"
    train(unbroken, METHODS["pgd-3"](), precision=precision)
    with pytest.raises(Stop):
        train(resumed, METHODS["pgd-3"](), file, precision=precision, augment=stopping_after(6))
    train(resumed, METHODS["pgd-3"](), file, precision=precision)
    assert same_weights(unbroken, resumed)


@pytest.mark.parametrize("name", ["natural", "pgd-3", "free-4"])
def test_a_stream_resumes_at_the_minibatch_that_comes_next(name, tmp_path):
    unbroken, resumed, file, stream = network(), network(), tmp_path / "run.pt", Rendered()
    train(unbroken, METHODS[name](), data=stream)
    whole = stream.asked.copy()
    with pytest.raises(Stop):
        train(resumed, METHODS[name](), file, data=stream, augment=stopping_after(2))
    stream.asked.clear()
    train(resumed, METHODS[name](), file, data=stream)
    assert stream.asked == whole[2:]
    assert same_weights(unbroken, resumed)


def test_the_checkpoint_of_another_stream_is_refused(tmp_path):
    train(network(), None, tmp_path / "run.pt", data=Rendered())
    with pytest.raises(ValueError, match=re.escape("images was 'noise.v1', is 'noise.v2'")):
        train(network(), None, tmp_path / "run.pt", data=Rendered("noise.v2"))
    with pytest.raises(ValueError, match=re.escape("images was 'noise.v1', is 40")):
        train(network(), None, tmp_path / "run.pt")


@pytest.mark.parametrize("name", METHODS)
def test_a_finished_run_is_only_read(name, tmp_path):
    first, again, file = network(), network(), tmp_path / "run.pt"
    knobs = {"probe": lambda model: {"one": 1.0}}
    report = train(first, METHODS[name](), file, **knobs)
    written = file.read_bytes()
    assert train(again, METHODS[name](), file, augment=stopping_after(0), **knobs) == report
    assert same_weights(first, again)
    assert file.read_bytes() == written


def test_checkpoints_are_rare_where_time_is_short(tmp_path, monkeypatch):
    written, write = [], checkpoints.write_tensors
    monkeypatch.setattr(checkpoints, "write_tensors", lambda *args: written.append(args) or write(*args))
    train(network(), None, tmp_path / "run.pt", checkpoint_seconds=3600)
    assert len(written) == 1  # the end is always kept
    train(network(), None, tmp_path / "other.pt", checkpoint_seconds=0)
    assert len(written) == 1 + UPDATES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt", "run.pt"]


def test_numbers_from_numpy_survive_a_checkpoint(tmp_path):
    knobs = {"lr": np.float64(0.05), "weight_decay": np.float64(5e-4), "probe": lambda model: {"a": np.float64(0.5)}}
    report = train(network(), None, tmp_path / "run.pt", **knobs)
    assert train(network(), None, tmp_path / "run.pt", **knobs) == report


# Files that cannot be used


def finished(folder: Path) -> Path:
    train(network(), METHODS["free-4"](), folder / "run.pt")
    return folder / "run.pt"


def test_an_altered_checkpoint_is_refused_by_name(tmp_path):
    file = finished(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"run\.pt was altered after it was written.*; remove it, make it again"):
        train(network(), METHODS["free-4"](), file)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    file = finished(tmp_path)
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"run\.pt is incomplete or not a thesis_kit file"):
        train(network(), METHODS["free-4"](), file)


@pytest.mark.parametrize(
    ("method", "knobs", "named"),
    [
        ("free-4", {"lr": 0.1}, "lr was 0.05, is 0.1"),
        ("free-4", {"seed": 1, "updates": 20}, "updates was 14, is 20; seed was 0, is 1"),
        ("free-4", {"precision": "bfloat16"}, "precision was 'float32', is 'bfloat16'"),
        ("free-4", {"schedule": "cosine"}, "schedule was 'one-cycle', is 'cosine'"),
        ("free-4", {"data": digits(0).train[:50]}, "images was 40, is 50"),
        ("fgsm-rs", {}, "method was \"Free {'eps': 0.1, 'replays': 4, 'warm_start': True}\", is \"FGSM {'eps': 0.1,"),
        ("free-4 cold", {}, "'warm_start': False"),
    ],
)
def test_the_checkpoint_of_another_run_names_what_differs(tmp_path, method, knobs, named):
    file = finished(tmp_path)
    model, before = network(), network()
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        train(model, METHODS[method](), file, **knobs)
    assert "is the checkpoint of another run" in str(caught.value)
    assert "remove it or name another file" in str(caught.value)
    assert same_weights(model, before)


def labels_turned():
    part = digits(0).train[:40]
    return Part(part.x, part.y.flip(0), part.ids)


def images_turned():
    part = digits(0).train[:40]
    return Part(part.x.flip(2), part.y, part.ids)


def smooth(weights: int = 0) -> nn.Module:
    return nn.Sequential(*(nn.GELU() if isinstance(layer, nn.ReLU) else layer for layer in network(weights)))


class Labelled(Noisy):
    def __init__(self, shift: int):
        self._shift = shift

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, (y + self._shift) % 10


@pytest.mark.parametrize(
    ("model", "knobs", "named"),
    [
        (network, {"data": labels_turned()}, "data was"),
        (network, {"data": images_turned()}, "data was"),
        (lambda: network(1), {}, "start was"),
        (smooth, {}, "start was"),
        (network, {"augment": shift}, "augment was 'Untouched {}', is 'shift'"),
        (network, {"augment": lambda x, random: x + 0.1}, "augment was 'Untouched {}', is '<lambda>'"),
    ],
)
@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_the_checkpoint_of_other_data_or_another_start_is_refused(tmp_path, model, knobs, named, seconds):
    file = finished(tmp_path) if seconds else interrupted(tmp_path)
    given = model()
    before = copy.deepcopy(given.state_dict())
    with pytest.raises(ValueError, match="checkpoint of another run") as caught:
        train(given, METHODS["free-4"](), file, **knobs)
    assert named in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in given.state_dict().items())


def interrupted(folder: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        train(network(), METHODS["free-4"](), folder / "run.pt", augment=Untouched(2, KeyboardInterrupt))
    return folder / "run.pt"


def test_closures_that_hold_different_numbers_are_different_augmentations(tmp_path):
    def brighter(by):
        return lambda x, random: (x + by).clamp(0, 1)

    train(network(), None, tmp_path / "run.pt", augment=brighter(0.1))
    train(network(), None, tmp_path / "run.pt", augment=brighter(0.1))
    with pytest.raises(ValueError, match=r"another run \(parts was"):
        train(network(), None, tmp_path / "run.pt", augment=brighter(0.2))


def test_a_data_set_of_ones_own_is_known_by_what_it_gives(tmp_path):
    train(network(), None, tmp_path / "run.pt", data=Labelled(0))
    train(network(), None, tmp_path / "run.pt", data=Labelled(0))
    with pytest.raises(ValueError, match=r"another run \(data was"):
        train(network(), None, tmp_path / "run.pt", data=Labelled(1))


def test_to_look_at_a_data_set_draws_no_random_number():
    def drawn():
        return torch.rand(()).item(), random.random(), np.random.rand()

    def seed():
        torch.manual_seed(3), random.seed(3), np.random.seed(3)

    seed()
    expected = drawn()
    seed()
    with training.run_state._as_if_unread():
        assert drawn() == expected
    assert drawn() == expected


def test_the_number_of_threads_is_part_of_a_run(tmp_path):
    file = interrupted(tmp_path)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match=r"another run \(threads was 1, is 2"):
            train(network(), METHODS["free-4"](), file)
    finally:
        torch.set_num_threads(1)


def test_a_method_of_another_version_is_another_method(tmp_path, monkeypatch):
    file = interrupted(tmp_path)
    monkeypatch.setattr(training.Free, "version", 2)
    with pytest.raises(ValueError, match=r"another run \(version was 1, is 2"):
        train(network(), METHODS["free-4"](), file)


@pytest.mark.parametrize(
    "tree", [{"settings": {}, "done": 3, "model": {}}, [1, 2], {"signature": "ab", "seconds": 1.0, "states": {}}]
)
def test_a_checkpoint_of_an_earlier_version_is_one_sentence(tmp_path, tree):
    checkpoints.write_tensors(tmp_path / "run.pt", tree)
    with pytest.raises(files.DamagedFile, match=r"run\.pt is no checkpoint, or one of another version of thesis_kit: "):
        train(network(), None, tmp_path / "run.pt")


def test_a_sealed_pickle_is_one_sentence_and_runs_nothing(tmp_path):
    payload = pickle.dumps({"a": Untouched()})
    (tmp_path / "run.pt").write_bytes(files.seal(payload))
    with pytest.raises(files.DamagedFile, match="holds other things than tensors and numbers") as caught:
        train(network(), None, tmp_path / "run.pt")
    assert "weights_only" not in str(caught.value)


def test_the_checkpoint_of_a_synthesis_is_no_training_run(tmp_path):
    settings = {"a": 1}
    file = checkpoints.Checkpoint(tmp_path / "run.pt", "synthesis", settings, every=0)
    with file.held():
        file.reached({"x": torch.zeros(2)}, "1 of 1 steps", finished=True)
    with pytest.raises(ValueError, match="is the checkpoint of a synthesis, not of a training run: remove it or name"):
        train(network(), None, tmp_path / "run.pt")


def test_two_trainings_on_one_checkpoint_do_not_mix(tmp_path):
    """The second one is refused while the first is at work, in whatever process or thread."""
    file, said = tmp_path / "run.pt", []

    def second():
        with pytest.raises(files.Busy) as caught:
            train(network(), None, file)
        said.append(str(caught.value))

    def meanwhile(model):
        thread = threading.Thread(target=second)
        thread.start(), thread.join()
        return {"a": 0.0}

    train(network(), None, file, probe=meanwhile)
    assert said == ["another run is writing run.pt, or left a process behind that is: wait until it has finished"]
    assert [*tmp_path.iterdir()] == [file]


def test_the_checkpoint_of_another_network_is_one_sentence(tmp_path):
    file = finished(tmp_path)
    with pytest.raises(ValueError, match=r"another run \(weights was 1242, is 650; start was .*; trained was "):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), METHODS["free-4"](), file)


def test_the_checkpoint_of_a_run_that_froze_less_is_one_sentence(tmp_path):
    file, model = finished(tmp_path), network()
    with pytest.raises(ValueError, match=r"checkpoint of another run \(weights was 1242, is 170; trained was "):
        train(model, METHODS["free-4"](), file, frozen=model[:5])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_stops_with_a_sentence_and_costs_nothing_saved(tmp_path, monkeypatch, step):
    file, unbroken, resumed = tmp_path / "run.pt", network(), network()
    train(unbroken, METHODS["free-4"]())
    with pytest.raises(Stop):
        train(network(), METHODS["free-4"](), file, augment=stopping_after(2))
    saved = file.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(writing.os, step, full)
        with pytest.raises(files.WriteFailed, match=r"could not write .*run\.pt \(No space left on device\)"):
            train(network(), METHODS["free-4"](), file)
    assert file.read_bytes() == saved
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    train(resumed, METHODS["free-4"](), file)
    assert same_weights(unbroken, resumed)


# SIGKILL

_VICTIM = """
import os, random, signal, sys
import torch
from pathlib import Path
from torch import nn
from thesis_kit import training
from thesis_kit.data import digits

torch.set_num_threads(1)
folder, method, seed = Path(sys.argv[1]), eval(sys.argv[2]), int(sys.argv[3])
data, file, chance = digits(0).train[:120], folder / "run.pt", random.Random(seed)

def run(checkpoint):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2),
                          nn.Linear(32, 10))
    training.train(model, data, method, updates=40, batch_size=32, checkpoint=checkpoint, checkpoint_seconds=0.0)
    return model.state_dict()

unbroken = run(None)  # before the children, which need not import anew what training imports

def dying(saves, late):
    # a rename that kills its process at one of the next calls, before or after the file is in place
    def replace(*paths, real=os.replace, left=[saves]):
        left[0] -= 1
        if left[0] == 0 and not late:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*paths)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace

for _ in range(4):
    saves, late = chance.randint(1, 2), chance.random() < 0.5  # of 10 in a whole run
    child = os.fork()
    if child == 0:
        os.replace = dying(saves, late)
        run(file)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "finished")
resumed = run(file)
print("alike" if all(torch.equal(resumed[name], unbroken[name]) for name in unbroken) else "different")
"""


def test_killed_at_saves_and_resumed_ends_bit_for_bit_alike(tmp_path):
    """By Free, which carries most from one minibatch to the next."""
    seed = random.randrange(10**6)
    command = [sys.executable, "-c", _VICTIM, str(tmp_path), "training.Free(0.1, replays=4)", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert said[-1] == "alike", f"seed {seed}: {said}"
    assert said.count("killed") == 4, f"seed {seed}: {said}"


def test_what_a_kill_leaves_half_written_is_never_read(tmp_path):
    unbroken, resumed, file = network(), network(), tmp_path / "run.pt"
    train(unbroken, None)
    (tmp_path / ".run.pt.123-abcd.part").write_bytes(b"half a checkpoint")
    train(resumed, None, file)
    assert same_weights(unbroken, resumed)


@pytest.mark.bad_input
def test_a_checkpoint_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(files.WriteFailed, match="choose a folder you may write to"):
        train(network(), None, tmp_path / "file" / "run.pt")
