"""Image–text pairs and transcripts in the one training loop: losses by hand, checkpoints, streams, precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit.data import Part, Stream
from thesis_kit.training import CTC, Contrastive, Transcripts, contrastive_loss, train

N, WORDS, LENGTH = 8, 6, 3


class Pairs(nn.Module):
    """The smallest image–text model: open_clip's call, and a scale."""

    def __init__(self, scale: float = 10.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.image, self.words = nn.Linear(16, 5), nn.Embedding(WORDS, 5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, images, texts):
        return self.image(images.flatten(1)), self.words(texts).mean(dim=1), self.logit_scale.exp()


def pairs(n: int = N, seed: int = 1) -> Part:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 4, 4, generator=generator)
    return Part(x, torch.randint(WORDS, (n, LENGTH), generator=generator), torch.arange(n))


def by_hand(u, v, scale, captions):
    """Mean over rows of the mean over m right columns of −log softmax, less ln m, both ways, in plain Python."""
    u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
    total = 0.0
    for a, b in ((u, v), (v, u)):
        for i in range(len(a)):
            z = [float(scale * a[i] @ b[j]) for j in range(len(b))]
            norm = math.log(sum(math.exp(value) for value in z))
            right = [j for j in range(len(b)) if captions[i] == captions[j]]
            total += (sum(norm - z[j] for j in right) / len(right) - math.log(len(right))) / len(a) / 2
    return total


@pytest.mark.parametrize("captions", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0]])
def test_the_contrastive_loss_is_what_its_formula_says(captions):
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    y = torch.tensor(captions)
    found = contrastive_loss(u, v, torch.tensor(7.0, dtype=torch.float64), y[:, None] == y)
    assert found.item() == pytest.approx(by_hand(u, v, 7.0, captions), rel=1e-12)


def test_of_different_captions_it_is_cross_entropy_with_the_diagonal():
    generator = torch.Generator().manual_seed(0)
    u, v = (F.normalize(torch.randn(5, 3, generator=generator), dim=1) for _ in range(2))
    z, target = 4 * u @ v.T, torch.arange(5)
    usual = (F.cross_entropy(z, target) + F.cross_entropy(z.T, target)) / 2
    found = contrastive_loss(u, v, torch.tensor(4.0), torch.eye(5, dtype=torch.bool))
    assert torch.allclose(found, usual, atol=1e-6)


def test_equal_captions_have_no_floor_that_plain_infonce_has():
    """Two captions, each four times, told apart perfectly: nothing is left, where InfoNCE keeps ln 4."""
    features = F.one_hot(torch.arange(8) % 2).float()
    y = torch.arange(8) % 2
    found = contrastive_loss(features, features, torch.tensor(100.0), y[:, None] == y)
    assert found.item() == pytest.approx(0.0, abs=1e-4)
    plain = contrastive_loss(features, features, torch.tensor(100.0), torch.eye(8, dtype=torch.bool))
    assert plain.item() == pytest.approx(math.log(4), abs=1e-4)


def test_pairs_are_learned_and_passes_counted():
    model, part = Pairs(), pairs()
    before = contrastive_of(model, part)
    report = train(model, part, Contrastive(), updates=200, batch_size=N, lr=0.05, optimizer="adamw", progress=False)
    assert contrastive_of(model, part) < before / 2
    assert (report.passes.forward, report.passes.backward) == (200, 200)
    assert report.passes.forward_images == 200 * N


def contrastive_of(model, part):
    with torch.no_grad():
        u, v, scale = model(part.x, part.y)
        return contrastive_loss(u, v, scale, (part.y[:, None] == part.y).all(dim=2)).item()


def test_the_scale_is_held_and_does_not_decay():
    model, held = Pairs(scale=99.0), Contrastive(largest_scale=20.0)
    train(model, pairs(), held, updates=1, batch_size=N, lr=1e-9, weight_decay=0.5, progress=False)
    assert model.logit_scale.exp().item() == pytest.approx(20.0, rel=1e-5)
    groups = held.groups(model)
    assert [len(group["params"]) for group in groups] == [3, 1]
    assert groups[1]["weight_decay"] == 0.0


class Captioned(Stream):
    name = "captioned.v1"

    def minibatch(self, position, size):
        return pairs(size, seed=position)


class Stop(Exception):
    pass


class Stopping:
    """An augmentation that changes nothing, and stops the run at the so-manieth minibatch."""

    def __init__(self, at: int):
        self._left = at

    def __call__(self, x, random):
        self._left -= 1
        if self._left == 0:
            raise Stop
        return x


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("data", [pairs(20), Captioned()], ids=["stored", "stream"])
def test_training_on_pairs_resumes_bit_for_bit(data, precision, tmp_path):
    knobs = {"updates": 6, "batch_size": 8, "lr": 0.05, "precision": precision, "progress": False}
    assert_resumes(Pairs, data, Contrastive, tmp_path / "run.pt", knobs)


def test_training_on_transcripts_resumes_bit_for_bit(tmp_path):
    assert_resumes(Recognizer, clips(), CTC, tmp_path / "run.pt", {"updates": 6, "batch_size": 4, "progress": False})


def assert_resumes(model, data, method, file, knobs):
    unbroken, stopped, resumed = model(), model(), model()
    train(unbroken, data, method(), **knobs)
    with pytest.raises(Stop):
        train(stopped, data, method(), checkpoint=file, checkpoint_seconds=0.0, augment=Stopping(4), **knobs)
    report = train(resumed, data, method(), checkpoint=file, augment=Stopping(99), **knobs)
    assert report.updates == 6
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


class Recognizer(nn.Module):
    """Halves time, and gives logits of four tokens."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Conv1d(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.layer(x).transpose(1, 2)


def clips() -> Part:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 4, (6, 3), generator=generator)
    y = Transcripts(tokens, torch.tensor([3, 2, 1, 3, 2, 3]), torch.tensor([20, 18, 9, 20, 20, 15]))
    return Part(torch.randn(6, 3, 20, generator=generator), y, torch.arange(6))


def test_transcripts_are_learned():
    model, part = Recognizer(), clips()
    losses = []
    for updates in (1, 300):
        train(model, part, CTC(), updates=updates, batch_size=6, lr=0.02, optimizer="adam", progress=False)
        losses.append(ctc_of(model, part))
    assert losses[1] < losses[0] / 3


def ctc_of(model, part):
    with torch.no_grad():
        log_p = model(part.x).log_softmax(dim=2).transpose(0, 1)
        steps = torch.tensor([math.ceil(frames / 2) for frames in part.y.frames.tolist()])
        return F.ctc_loss(log_p, part.y.tokens, steps, part.y.lengths, zero_infinity=True).item()


def test_one_update_descends_on_the_published_loss():
    """The gradient of an update is that of F.ctc_loss on clips cut to their own lengths."""
    ours, plain, part = Recognizer(), Recognizer(), clips()
    train(ours, part, CTC(), updates=1, batch_size=6, lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0,
          progress=False)  # fmt: skip
    log_p = plain(part.x).log_softmax(dim=2).transpose(0, 1)
    steps = torch.tensor([math.ceil(frames / 2) for frames in part.y.frames.tolist()])
    F.ctc_loss(log_p, part.y.tokens, steps, part.y.lengths, zero_infinity=True).backward()
    with torch.no_grad():
        expected = plain.layer.weight - 0.1 * plain.layer.weight.grad
    assert torch.allclose(ours.layer.weight, expected, atol=1e-6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("model", "part", "method", "sentence"),
    [
        (Pairs, lambda: Part(pairs().x, torch.arange(N), torch.arange(N)), Contrastive, r"token ids, int64 of shape"),
        (Pairs, lambda: Part(pairs().x * 300, pairs().y, torch.arange(N)), Contrastive, r"pixels must lie in \[0, 1\]"),
        (lambda: nn.Flatten(), pairs, Contrastive, "no parameters"),
        (Recognizer, lambda: Part(clips().x, torch.arange(6), torch.arange(6)), CTC, "targets must be 6 Transcripts"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 4)), clips, CTC, r"logits of shape \(6, steps, tokens\)"),
    ],
)
def test_what_does_not_fit_is_a_sentence(model, part, method, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        train(model(), part(), method(), updates=1, batch_size=N, progress=False)
    assert "\n" not in str(caught.value)
