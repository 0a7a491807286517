"""Recording: exact values of small networks, whatever follows them; nothing left behind; bounded memory; refusals."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from thesis_kit import recording, synthesis
from thesis_kit.checks import NonFiniteOutput, UnknownName
from thesis_kit.data import Part
from thesis_kit.data.forms import windows
from thesis_kit.models import Classifier
from thesis_kit.recording import Moments, Top


class Attention(nn.Module):
    """As Whisper's: four projections, heads by a number; fused or written out."""

    def __init__(self, width: int = 8, heads: int = 2, fused: bool = True, drops: bool = False):
        super().__init__()
        self.n_head, self.fused, self.drops = heads, fused, drops
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def projected(self, x):
        return [z(x).unflatten(2, (self.n_head, -1)).transpose(1, 2) for z in (self.query, self.key, self.value)]

    def forward(self, x):
        q, k, v = self.projected(x)
        if self.fused:
            return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        if self.drops:
            weights = weights * (weights > weights.mean())
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm; what is recorded is overwritten behind it."""

    def __init__(self, width: int = 8, **knobs):
        super().__init__()
        self.attn_ln, self.attn = nn.LayerNorm(width), Attention(width, **knobs)
        self.mlp_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x):
        x = x + self.attn(self.attn_ln(x))
        return self.mlp(self.mlp_ln(x)).add_(x)


class Encoder(nn.Module):
    """Spectra (n, 5, t) to four numbers, in the manner of Whisper's encoder."""

    def __init__(self, **knobs):
        super().__init__()
        self.conv1 = nn.Conv1d(5, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Block(**knobs) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv1(x).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
            x.mul_(1.0)
        return self.head(x.mean(dim=1))


def encoder(**knobs) -> Encoder:
    torch.manual_seed(0)
    return Encoder(**knobs)


def spectra(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 5, 7, generator=torch.Generator().manual_seed(1))


class Twice(nn.Module):
    """One activation that runs twice, in place, as in torchvision's ResNets."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.relu = nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x))))


def by_hand(model: Encoder, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What stands in the second block, from the equations."""
    with torch.no_grad():
        stream = model.blocks[0](model.conv1(x).transpose(1, 2))
        block = model.blocks[1]
        q, k, v = block.attn.projected(block.attn_ln(stream))
        weights = (q @ k.transpose(-2, -1) / 2).softmax(dim=-1)
        added = block.attn.out((weights @ v).transpose(1, 2).flatten(2))
        middle = stream + added
        hidden = block.mlp[1](block.mlp[0](block.mlp_ln(middle)))
        out = block.mlp[2](hidden)
        names = {"q": q, "k": k, "v": v, "attention_map": weights, "attention_out": added, "hidden": hidden}
        return {f"blocks.1.{name}": z for name, z in {**names, "mlp_out": out, "residual": middle + out}.items()}


# A batch


def test_every_site_is_what_the_equations_say():
    model, x = encoder(), spectra()
    expected = by_hand(model, x)
    found = recording.record(model, x, list(expected))
    assert list(found) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=name)
        assert not found[name].requires_grad


@pytest.mark.parametrize("name", list(by_hand(encoder(), spectra())))
def test_a_site_alone_ends_the_pass_and_is_the_same(name):
    model, x, reached = encoder(), spectra(), []
    model.blocks[2].register_forward_hook(lambda *_: reached.append(2))
    torch.testing.assert_close(recording.record(model, x, name)[name], by_hand(model, x)[name])
    assert not reached


def test_attention_that_is_written_out_gives_the_same():
    model, x = encoder(fused=False), spectra()
    expected = by_hand(model, x)
    expected = {name: z for name, z in expected.items() if name.rpartition(".")[2] in ("q", "k", "v", "attention_map")}
    found = recording.record(model, x, list(expected))
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_a_map_that_is_changed_after_the_softmax_is_refused():
    model = encoder(fused=False, drops=True)
    with pytest.raises(ValueError, match="of Attention does not give the attention's own output"):
        recording.record(model, spectra(), "blocks.0.attention_map")
    assert recording.record(model, spectra(), "blocks.0.attention_out")["blocks.0.attention_out"].shape == (3, 7, 8)
    listed = recording.sites(model, spectra())
    assert "blocks.0.attention_map" not in listed
    assert "does not give the attention's own output" in str(listed)
    assert listed["blocks.0.hidden"].shape == (1, 7, 24)


def test_a_layer_that_runs_twice_is_seen_each_time():
    model, x = Twice(), torch.rand(2, 3)
    with torch.no_grad():
        first = model.first(x).relu()
        second = model.second(first).relu()
    found = recording.record(model, x, ["relu", "relu#2", "input of relu#2"])
    assert torch.equal(found["relu"], first)
    assert torch.equal(found["relu#2"], second)
    assert torch.equal(found["input of relu#2"], model.second(first))
    with pytest.raises(ValueError, match=r"never reaches relu#3$"):
        recording.record(model, x, ["relu", "relu#3"])
    listed = recording.sites(model, x)
    assert listed["relu"].calls == 2
    assert "2 times in a pass" in str(listed)


def test_gradients_reach_the_inputs_where_they_are_asked_for():
    model, x = encoder(), spectra().requires_grad_()
    with torch.no_grad():
        found = recording.record(model, x, ["blocks.0.hidden", "blocks.0.attention_map"], grad=True)
    assert not recording.record(model, x, "blocks.0.hidden")["blocks.0.hidden"].requires_grad
    (gradient,) = torch.autograd.grad(found["blocks.0.hidden"].sum(), x, retain_graph=True)
    (of_map,) = torch.autograd.grad(found["blocks.0.attention_map"][..., 0].sum(), x)
    x_plain = x.detach().requires_grad_()
    block = model.blocks[0]
    stream = model.conv1(x_plain).transpose(1, 2)
    hidden = block.mlp[:2](block.mlp_ln(stream + block.attn(block.attn_ln(stream))))
    torch.testing.assert_close(gradient, torch.autograd.grad(hidden.sum(), x_plain)[0])
    assert of_map.abs().sum() > 0
    with torch.inference_mode(), pytest.raises(ValueError, match="recording with grad=True needs gradients"):
        recording.record(model, x, "blocks.0.hidden", grad=True)


class Broken(Encoder):
    def forward(self, x):
        super().forward(x)
        raise RuntimeError("broken")


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("kind", [Encoder, Broken])
def test_nothing_is_left_behind(kind):
    torch.manual_seed(0)
    model, x = kind().train(), spectra()
    model.blocks[1].eval()
    model.blocks[0].attn.fused_attn = False
    before, fast = x.clone(), torch.backends.mha.get_fastpath_enabled()
    names = ["blocks.0.q", "blocks.2.residual", "logits"]
    if kind is Broken:
        with pytest.raises(ValueError, match=r"cannot take inputs of shape \(\d, 5, 7\) \(broken\)"):
            recording.record(model, x, names)
    else:
        recording.record(model, x, names)
    with pytest.raises(ValueError, match="NaN"):
        recording.record(model, x * torch.nan, names)
    assert hooks(model) == 0
    assert model.training
    assert not model.blocks[1].training
    assert model.blocks[0].attn.fused_attn is False
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert torch.equal(x, before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_model_in_training_is_recorded_in_evaluation_mode_and_its_statistics_stay():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    x = torch.rand(4, 1, 3, 3)
    found = recording.record(model, x, ["1", "2"])
    assert torch.equal(found["1"], found["2"])
    assert model[1].num_batches_tracked == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_models_that_are_wrapped_are_recorded_all_the_same():
    model, x = encoder(), spectra()
    expected = recording.record(model, x, "blocks.1.attention_map")["blocks.1.attention_map"]
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    for wrapped in (nn.DataParallel(model), compiled):
        found = recording.record(wrapped, x, "blocks.1.attention_map")["blocks.1.attention_map"]
        torch.testing.assert_close(found, expected)
        assert list(recording.sites(wrapped)) == list(recording.sites(model))
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    inside = Classifier(body, mean=[0.5] * 3, std=[0.5] * 3)
    images = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(recording.record(inside, images, "0")["0"], (images.flatten(1) - 0.5) / 0.5)


def test_a_double_image_meets_a_single_model_and_tokens_stay_whole():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 3))
    tokens = torch.tensor([[1, 9], [0, 3]])
    assert torch.equal(recording.record(model, tokens, "0")["0"], model[0](tokens))
    assert recording.record(encoder(), spectra().double(), "conv1")["conv1"].dtype == torch.float32
    found = recording.record(encoder().bfloat16(), spectra(), "blocks.0.attention_map")["blocks.0.attention_map"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().sum(dim=-1), torch.ones(3, 2, 7), atol=2e-2, rtol=0)


def test_a_model_may_answer_anything():
    class Answers(Encoder):
        def forward(self, x):
            return {"scores": super().forward(x), "more": None}

    torch.manual_seed(0)
    model, x = Answers(), spectra()
    found = recording.record(model, x, ["conv1", "head"])
    torch.testing.assert_close(found["head"], encoder()(x).detach())
    listed = recording.sites(model, x)
    assert listed["blocks.2.residual"].shape == (1, 7, 8)
    assert recording.stream(model, x, "blocks.2.residual")["blocks.2.residual"].count == 3


def test_masked_and_causal_attention_is_masked_in_the_map():
    class Causal(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.num_heads, self.mask, self.qkv, self.proj = 2, mask, nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            known = {"is_causal": True} if self.mask is None else {"attn_mask": self.mask}
            return self.proj(F.scaled_dot_product_attention(q, k, v, **known).transpose(1, 2).flatten(2))

    lower = torch.ones(5, 5, dtype=torch.bool).tril()
    maps = []
    for mask in (None, lower, torch.zeros(5, 5).masked_fill(~lower, -torch.inf)):
        torch.manual_seed(0)
        model = nn.Sequential(Causal(mask))
        maps.append(recording.record(model, torch.ones(1, 5, 8) * torch.arange(5.0)[:, None], "0.attention_map"))
    for found in maps:
        torch.testing.assert_close(found["0.attention_map"], maps[0]["0.attention_map"])
        assert found["0.attention_map"].triu(1).abs().max() == 0
        torch.testing.assert_close(found["0.attention_map"].sum(dim=-1), torch.ones(1, 2, 5))


# Names


def test_the_table_names_what_there_is():
    said = str(recording.sites(encoder(), spectra()))
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert rows[0] == "sites of Encoder"
    assert "blocks.{0…2}.hidden hidden (n, 7, 24) hidden units of the MLP: the input of its second layer" in rows
    assert "blocks.{0…2}.attention_map attention_map (n, 2, 7, 7) attention map by head; each row adds up to 1" in rows
    assert "tokens tokens (n, 7, 8) what the first block is given" in rows
    static = recording.sites(encoder())
    assert static["blocks.2.hidden"].shape_text == "(n, t, 24)"
    assert static["blocks.2.q"].shape_text == "(n, 2, t, d)"
    assert [site.name for site in static.of_kind("hidden")] == [f"blocks.{i}.hidden" for i in range(3)]
    with pytest.raises(UnknownName, match="unknown kind of site 'hiden': did you mean hidden"):
        static.of_kind("hiden")


def test_a_layer_that_has_a_sites_name_comes_first_and_the_site_is_renamed():
    model = encoder()
    model.blocks[0].hidden = nn.Identity()
    listed = recording.sites(model)
    assert "blocks.0.hidden" not in listed
    expected = by_hand(model, spectra())["blocks.1.hidden"]
    torch.testing.assert_close(recording.record(model, spectra(), "blocks.1.hidden")["blocks.1.hidden"], expected)
    assert recording.record(model, spectra(), "blocks.0.hidden.site")["blocks.0.hidden.site"].shape == (3, 7, 24)


def test_a_part_of_ones_own_model_may_be_called_network():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = encoder()

        def forward(self, x):
            return self.network(x)

    around, name = Around(), "blocks.1.residual"
    expected = recording.record(around.network, spectra(), name)[name]
    assert f"network.{name}" in recording.sites(around)
    assert torch.equal(recording.record(around, spectra(), f"network.{name}")[f"network.{name}"], expected)
    with pytest.raises(UnknownName, match=r"unknown layer 'network\.blocks\.1\.residul': did you mean"):
        recording.record(around, spectra(), "network.blocks.1.residul")


def test_unknown_names_offer_near_ones_and_unreached_ones_are_named():
    model = encoder()
    with pytest.raises(UnknownName, match=r"unknown layer 'blocks.1.hiden': did you mean blocks.1.hidden"):
        recording.record(model, spectra(), "blocks.1.hiden")
    model.blocks.append(Block())
    model.forward = lambda x: model.head(model.blocks[0](model.conv1(x).transpose(1, 2)).mean(dim=1))
    with pytest.raises(ValueError, match=r"never reaches blocks\.3\.hidden, blocks\.3\.attention_map$"):
        recording.record(model, spectra(), ["blocks.0.hidden", "blocks.3.hidden", "blocks.3.attention_map"])
    listed = recording.sites(model, spectra())
    assert listed["blocks.3.hidden"].calls == 0
    assert "not reached by this input" in str(listed)


@pytest.mark.bad_input
def test_what_cannot_be_recorded_is_one_sentence():
    model = encoder()
    with pytest.raises(TypeError, match="inputs must be a tensor"):
        recording.record(model, [1.0], "conv1")
    with pytest.raises(ValueError, match="at least one, got shape"):
        recording.record(model, spectra()[:0], "conv1")
    for sites in ([], [3], 3, None):
        with pytest.raises(TypeError, match="sites are given by their names"):
            recording.record(model, spectra(), sites)
    with pytest.raises(TypeError, match=r"convert with x.float\(\) / 255"):
        recording.record(model, spectra().byte(), "conv1")
    with pytest.raises(ValueError, match=r"cannot take inputs of shape \(2, 3\) \(only squares") as caught:
        recording.record(Refusing(), torch.rand(2, 3), "layer")
    assert isinstance(caught.value.__cause__, AssertionError)
    broken = Refusing()
    broken.layer.weight.data.fill_(torch.inf)
    with pytest.raises(NonFiniteOutput, match="the model returned NaN"):  # a sentence of our own passes
        recording.record(broken, torch.ones(3, 3), "logits")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 4, 8, 8), r"cannot take images of shape \(4, 8, 8\) \(.*4 channels.*\): where that is for"),
        (torch.rand(2, 3), r"inputs of shape \([12], 3\) \(.*\): where that is for their shape or values"),
        (torch.ones(2, 3, 8, 8).long(), r"shape \([12], 3, 8, 8\), torch.int64 \(.*\): .* convert them with x.float"),
    ],
)
def test_inputs_that_the_model_cannot_take_are_one_sentence(x, message):
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    for call in (
        lambda: recording.record(model, x, "1"),
        lambda: recording.stream(model, x, "1"),
        lambda: recording.top_examples(model, x, "1", 1),
        lambda: recording.sites(model, x),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert isinstance(caught.value.__cause__, RuntimeError)
    assert hooks(model) == 0


class Refusing(nn.Module):
    """As timm's networks refuse images of another size."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        assert x.shape[0] == x.shape[1], "only squares"
        return self.layer(x)


def test_synthesis_reads_sites_too():
    class Seeing(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder()

        def forward(self, x):
            return self.encoder(x.flatten(2)[:, :, :7].expand(-1, 5, -1))

    stages = synthesis.Stage(6, 3)
    made = synthesis.synthesize(
        Seeing(), synthesis.maximize(synthesis.channel("encoder.blocks.1.hidden", [3])), stages=stages, channels=1,
        progress=False,
    )  # fmt: skip
    same = synthesis.synthesize(
        Seeing(), synthesis.maximize(synthesis.channel("input of encoder.blocks.1.mlp.2", [3])), stages=stages,
        channels=1, progress=False,
    )  # fmt: skip
    assert torch.equal(made.images, same.images)


# A data set


def rows(model: nn.Module, x: torch.Tensor, name: str = "blocks.1.hidden") -> torch.Tensor:
    return by_hand(model, x)[name].mean(dim=1)


FORMS = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "part": lambda x: Part(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x))),
    "pair": lambda x: (x, torch.zeros(len(x), dtype=torch.int64)),
    "arrays": lambda x: (x.numpy(), np.zeros(len(x), dtype=np.int32)),
    "data set": lambda x: TensorDataset(x, torch.zeros(len(x))),
    "loader": lambda x: DataLoader(TensorDataset(x), batch_size=3),
    "minibatches": lambda x: [x[:5], x[5:]],
}


def test_the_callers_randomness_stays():
    model, data = encoder(), FORMS["data set"](spectra(6))
    before = torch.random.get_rng_state()
    recording.stream(model, data, "blocks.0.hidden")
    recording.top_examples(model, data, "blocks.0.hidden", 2)
    assert len(list(windows(TensorDataset(torch.zeros(6, 3, 4, 4), torch.arange(6)), 4))) == 2
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_moments_and_tops_are_those_of_all_at_once(form, batch_size):
    model, x = encoder(), spectra(11)
    expected = rows(model, x)
    found = recording.stream(model, FORMS[form](x), "blocks.1.hidden", batch_size=batch_size)["blocks.1.hidden"]
    assert found.count == 11
    torch.testing.assert_close(found.mean, expected.double().mean(dim=0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.variance, expected.double().var(dim=0, correction=0), atol=1e-8, rtol=1e-4)
    torch.testing.assert_close(found.largest.float(), expected.amax(dim=0), atol=1e-6, rtol=1e-5)
    top = recording.top_examples(model, FORMS[form](x), "blocks.1.hidden", 4, batch_size=batch_size)
    torch.testing.assert_close(top.value, expected.topk(4, dim=0).values.T, atol=1e-6, rtol=1e-5)
    assert torch.equal(top.index, expected.topk(4, dim=0).indices.T)
    assert top.units.tolist() == list(range(24))


def test_ties_go_to_the_earlier_input_whatever_the_batches():
    values = torch.tensor([[1.0, 0], [2, 0], [2, 0], [0, 0], [2, 0], [3, 0]])
    for size in (1, 2, 4, 6):
        top = Top(4)
        for first in range(0, 6, size):
            top.add(values[first : first + size], torch.arange(first, min(first + size, 6)))
        assert top.result().index.tolist() == [[5, 1, 2, 4], [0, 1, 2, 3]]
        assert top.result().value.tolist() == [[3, 2, 2, 2], [0, 0, 0, 0]]


def test_moments_of_numbers_far_from_zero_lose_nothing():
    values = torch.tensor([[4.0], [7], [13], [16]], dtype=torch.float64) + 1e9
    for cut in (1, 2, 3):
        moments = Moments()
        moments.add(values[:cut], torch.arange(cut)), moments.add(values[cut:], torch.arange(cut, 4))
        assert moments.result().variance.item() == 22.5
        assert moments.result().std.item() == pytest.approx(22.5**0.5)


def test_patterns_of_the_strongest_are_kept_along():
    model, x = encoder(), spectra(9)
    hidden = by_hand(model, x)["blocks.1.hidden"]
    top = recording.top_examples(
        model, x, "blocks.1.hidden", 3, units=[20, 2], pool="max", patterns=True, batch_size=2
    )
    expected = hidden.amax(dim=1)[:, [20, 2]]
    assert torch.equal(top.index, expected.topk(3, dim=0).indices.T)
    assert top.units.tolist() == [20, 2]
    for unit, which in enumerate([20, 2]):
        torch.testing.assert_close(top.pattern[unit], hidden[top.index[unit], :, which])


def test_rows_and_functions_of_ones_own():
    model, x = encoder(), spectra(5)
    expected = by_hand(model, x)
    found = recording.stream(
        model, x, ["blocks.1.q", "blocks.1.residual"], reduce="rows", pool=lambda z: z.flatten(1)[:, :3], batch_size=2
    )
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name].flatten(1)[:, :3])
    q = recording.stream(model, x, "blocks.1.q", reduce="rows")["blocks.1.q"]
    torch.testing.assert_close(q, expected["blocks.1.q"].mean(dim=2).flatten(1))
    top = recording.stream(model, x, "blocks.1.residual", reduce=lambda: Top(2))["blocks.1.residual"]
    assert torch.equal(top.index, expected["blocks.1.residual"].mean(dim=1).topk(2, dim=0).indices.T)


def test_memory_stays_flat():
    """Neither minibatches nor what was recorded of them outlive the next one."""
    inputs, recorded, most = weakref.WeakSet(), weakref.WeakSet(), 0

    def minibatches():
        nonlocal most
        for seed in range(40):
            x = torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(seed))
            inputs.add(x)
            most = max(most, len(inputs), len(recorded))
            yield x
            del x

    def pool(values):
        recorded.add(values)
        return values.mean(dim=1)

    model = encoder()
    for reduce in (Moments, lambda: Top(3)):
        recording.stream(model, minibatches(), ["blocks.0.hidden"], reduce=reduce, pool=pool, batch_size=4)
    assert 1 <= most <= 2
    kept = Top(3)
    for seed in range(30):
        kept.add(torch.rand(50, 6), torch.arange(50) + 50 * seed, torch.rand(50, 6, 4))
    assert kept._value.untyped_storage().nbytes() == 3 * 6 * 4
    assert kept._pattern.untyped_storage().nbytes() == 3 * 6 * 4 * 4


@pytest.mark.bad_input
def test_data_that_cannot_be_meant_are_one_sentence():
    model, x = encoder(), spectra(3)
    with pytest.raises(ValueError, match="hold 3 inputs and k is 4"):
        recording.top_examples(model, x, "blocks.0.hidden", 4)
    with pytest.raises(ValueError, match=r"numbers in \[0, 23\], at least one, got \[24\]"):
        recording.top_examples(model, x, "blocks.0.hidden", 1, units=[24])
    for units in (torch.ones(24, dtype=torch.bool), slice(0, 2), {1, 2}, "0-3", 3, [], [1.0]):
        with pytest.raises(ValueError, match=r"units are whole numbers \(k,\) or directions \(k, u\)"):
            recording.top_examples(model, x, "blocks.0.hidden", 1, units=units)
    found = [recording.top_examples(model, x, "blocks.0.hidden", 1, units=units).units.tolist()
             for units in (torch.tensor([1, 2], dtype=torch.uint8), range(1, 3), (1, 2))]  # fmt: skip
    assert found == [[1, 2]] * 3
    with pytest.raises(ValueError, match="units are asked about at one site, got 2"):
        recording.top_examples(model, x, ["blocks.0.hidden", "conv1"], 1)
    with pytest.raises(ValueError, match="there are no inputs to record"):
        recording.stream(model, [], "blocks.0.hidden")
    with pytest.raises(TypeError, match="inputs come as a tensor"):
        recording.stream(model, 3, "blocks.0.hidden")
    with pytest.raises(UnknownName, match="unknown way to reduce 'moment': did you mean moments"):
        recording.stream(model, x, "blocks.0.hidden", reduce="moment")
    for reduce in (None, 3, Top(2), lambda: 3):
        with pytest.raises(TypeError, match="reduce must be “moments”, “rows” or a function that makes a reducer"):
            recording.stream(model, x, "blocks.0.hidden", reduce=reduce)
    for pool in (None, 3):
        with pytest.raises(UnknownName, match="unknown way to pool"):
            recording.stream(model, x, "blocks.0.hidden", pool=pool)
    with pytest.raises(TypeError, match=r"pool must give a tensor \(3, u\) of blocks.0.hidden, got ndarray"):
        recording.stream(model, x, "blocks.0.hidden", pool=lambda value: value.mean(1).numpy())
    with pytest.raises(UnknownName, match="unknown way to pool 'maxi': did you mean max"):
        recording.stream(model, x, "blocks.0.hidden", pool="maxi")
    with pytest.raises(ValueError, match="has no class token"):
        recording.stream(model, x, "blocks.0.hidden", pool="class")
    with pytest.raises(ValueError, match=r"one row an input, \(3, u\)"):
        recording.stream(model, x, "blocks.0.hidden", pool=lambda z: z)
    model.blocks[0].mlp[0].weight.data.fill_(torch.inf)
    with pytest.raises(NonFiniteOutput, match=r"blocks\.0\.hidden gives NaN"):
        recording.stream(model, x, "blocks.0.hidden")
    with pytest.raises(NonFiniteOutput, match="inputs contain NaN"):
        recording.stream(model, [x, x * torch.nan], "conv1")
    assert hooks(model) == 0


def test_a_site_that_is_named_twice_is_recorded_once():
    model, x = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), torch.rand(6, 3)
    assert recording.stream(model, x, ["0", "0"], reduce="rows")["0"].shape == (6, 2)
    assert recording.stream(model, x, ["0", "0"], reduce="moments")["0"].count == 6


class Placed(nn.Module):
    """A layer that gives what it holds, once an input."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.ones(1, 4))

    def forward(self, x):
        return self.place.expand(len(x), -1)


def test_what_is_recorded_is_nobody_s_storage():
    model = nn.Sequential(Placed(), nn.Linear(4, 2))
    seen = recording.record(model, torch.rand(3, 4), "0")["0"]
    assert not seen.requires_grad
    seen.zero_()
    assert (model[0].place == 1).all()
    x = torch.ones(3, 4)
    recording.record(nn.Sequential(nn.Linear(4, 2)), x, [synthesis.IMAGES, "0"])[synthesis.IMAGES].zero_()
    assert (x == 1).all()
