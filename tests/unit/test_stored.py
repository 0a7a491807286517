"""Weights of one's own: read from every usual form of file, put into the network they belong to, or refused."""

from __future__ import annotations

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from thesis_kit.files import DamagedFile
from thesis_kit.models import Classifier, build, from_file
from thesis_kit.models.stored import UnfitWeights


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return timm.create_model("test_resnet", num_classes=7).eval()


def forms(network, folder):
    """Every form in which people keep weights."""
    state = network.state_dict()
    safetensors.torch.save_file(state, folder / "plain.safetensors")
    for name, held in {
        "plain.pt": state,
        "parallel.pt": nn.DataParallel(network).state_dict(),
        "compiled.pt": {f"_orig_mod.{key}": value for key, value in state.items()},
        "wrapped.pt": Classifier(network).state_dict(),
        "parallel_wrapped.pth": {f"module.network.{key}": value for key, value in state.items()},
        "checkpoint.pt": {"epoch": 3, "optimizer": {"state": {}}, "state_dict": state},
        "other.pt": {"weights of mine": state, "epoch": 2},
        "two.pt": {"model": state, "ema": {key: value * 0 for key, value in state.items()}},
    }.items():
        torch.save(held, folder / name)
    return sorted(folder.iterdir())


def test_every_usual_form_gives_the_same_network_with_as_many_classes_as_the_file_has(network, tmp_path):
    x = torch.rand(2, 3, 32, 32)
    expected = build("test_resnet", n_classes=7)
    expected.network.load_state_dict(network.state_dict())
    with torch.no_grad():
        wanted = expected.eval()(x)
    paths = forms(network, tmp_path)
    assert len(paths) == 9
    for path in paths:
        model = from_file(path, "test_resnet")
        assert not model.training
        with torch.no_grad():
            assert torch.equal(model(x), wanted), path.name


def test_classes_may_be_given_and_channels_follow(tmp_path):
    torch.manual_seed(0)
    mine = build("small_cnn", n_classes=3, in_channels=3, width=8)
    torch.save(mine.state_dict(), tmp_path / "mine.pt")
    model = from_file(tmp_path / "mine.pt", "small_cnn", in_channels=3, width=8)
    assert torch.equal(model(torch.ones(1, 3, 8, 8)), mine(torch.ones(1, 3, 8, 8)))
    given = from_file(tmp_path / "mine.pt", "small_cnn", n_classes=3, in_channels=3, width=8)
    assert given.network[-1].out_features == 3
    with pytest.raises(UnfitWeights, match=r"network\.10\.weight has shape \(3, 32\) instead of \(4, 32\)"):
        from_file(tmp_path / "mine.pt", "small_cnn", n_classes=4, in_channels=3, width=8)
    with pytest.raises(UnfitWeights, match=r"mine\.pt are for another architecture \(network\.0\.weight has shape"):
        from_file(tmp_path / "mine.pt", "small_cnn", width=8)
    with pytest.raises(UnfitWeights, match=r"is missing.* and \d+ more\): give the architecture"):
        from_file(tmp_path / "mine.pt", "test_resnet")


def test_stored_in_half_precision_they_are_computed_with_in_full(network, tmp_path):
    torch.save({key: value.half() for key, value in network.state_dict().items()}, tmp_path / "half.pt")
    model = from_file(tmp_path / "half.pt", "test_resnet")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


class Dangerous:
    """Runs code of its own when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a file of weights ran code",)


def test_what_is_no_file_of_weights_is_one_sentence(network, tmp_path):
    whole = tmp_path / "plain.pt"
    torch.save(network.state_dict(), whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save(network, tmp_path / "module.pt")
    torch.save({"x": Dangerous()}, tmp_path / "dangerous.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, tmp_path / "several.pt")
    for path in set(tmp_path.iterdir()) - {whole}:
        with pytest.raises(DamagedFile, match=r"save them with torch\.save\(model\.state_dict\(\), …\)") as caught:
            from_file(path, "test_resnet")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 350
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no file .* to take weights from"):
            from_file(path, "test_resnet")
