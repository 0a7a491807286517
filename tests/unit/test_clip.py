"""The small image–text pair: words, towers, the scale, and zero-shot classification as an ordinary classifier."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thesis_kit import attacks, certification, inversion, training
from thesis_kit.checks import UnknownName
from thesis_kit.data import Part
from thesis_kit.data.scenes import DISTRIBUTIONS, captions
from thesis_kit.data.scenes.lexicon import LEXICON, vocabulary
from thesis_kit.data.text import Vocabulary
from thesis_kit.language import SCENE_TEMPLATES, class_features, name_by_text, scene_classes, zero_shot
from thesis_kit.models import Classifier, Clip, build, build_clip

COLORS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "blue": (0.1, 0.2, 0.9)}


def tiny(seed: int = 0) -> Clip:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 8))
        words = Vocabulary(("red", "green", "blue", "a", "picture", "of"), context=6)
        return build_clip(image=Classifier(network, size=16), embed_dim=8, width=12, depth=1, heads=2, vocabulary=words)


def colored(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images of one color each, 16 × 16, and which."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.arange(n) % len(COLORS)
    plain = torch.tensor(list(COLORS.values()))[which][:, :, None, None]
    return (plain + 0.1 * torch.randn(n, 3, 16, 16, generator=generator)).clamp(0, 1), which


@pytest.fixture(scope="module")
def taught() -> Clip:
    clip, (x, which) = tiny(), colored(48, seed=1)
    tokens = clip.tokenizer([f"a picture of {list(COLORS)[i]}" for i in which.tolist()])
    knobs = {"updates": 60, "batch_size": 24, "lr": 0.01, "optimizer": "adam", "progress": False}
    training.train(clip, Part(x, tokens, torch.arange(48)), training.Contrastive(), **knobs)
    return clip.eval()


@pytest.fixture(scope="module")
def classifier(taught) -> Classifier:
    return zero_shot(taught, list(COLORS), ("a picture of {}",))


def test_the_lexicon_holds_every_word_of_every_caption():
    words, said = vocabulary(), set()
    for name in ("scenes.v1", "scenes.v1-pairs"):
        table = DISTRIBUTIONS[name].sample(torch.arange(1500), seed=4)
        for kind in ("class", "full", "theme"):
            rows = words(captions(table, kind))
            said |= {LEXICON[number - 1] for number in rows.unique().tolist() if 0 < number < words.end}
    assert set(LEXICON) - said == {"one", "small"}  # the least single object is not small


def test_a_sentence_is_its_words_an_end_and_padding():
    words = Vocabulary(("a", "red", "star"), context=6)
    assert words(["A red star.", "star"]).tolist() == [[1, 2, 3, 4, 0, 0], [3, 4, 0, 0, 0, 0]]
    assert words.size == 5


@pytest.mark.parametrize(
    ("sentences", "error", "said"),
    [
        (["a rde star"], UnknownName, "unknown word 'rde': did you mean red.*in 'a rde star'"),
        (["star " * 6], ValueError, "7 tokens is longer than the context of 6: shorten"),
        (["a star", " , "], ValueError, "without a word says nothing, got ' , '"),
    ],
)
def test_a_sentence_that_cannot_be_held_is_refused(sentences, error, said):
    with pytest.raises(error, match=said):
        Vocabulary(("a", "red", "star"), context=6)(sentences)


@pytest.mark.parametrize("words", [(), ("a", "a"), ("Red",), ("two words",)])
def test_a_vocabulary_that_no_sentence_fits_is_refused(words):
    with pytest.raises(ValueError, match="needs different single words in lower case"):
        Vocabulary(words)


def test_an_unknown_word_is_answered_with_few_names():
    with pytest.raises(UnknownName) as caught:
        vocabulary()(["zzyx"])
    assert len(str(caught.value)) < 160


def test_features_have_length_one_and_texts_do_not_depend_on_neighbors():
    clip = build_clip(seed=0, image_options={"depth": 1}).eval()
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen, said = clip.encode_image(x), clip.encode_text(["a red star", "two hearts over waves"])
        alone = clip.encode_text(["a red star"])
        u, v, scale = clip(x, clip.tokenizer(["a red star", "two hearts over waves"]))
    assert seen.shape == (3, 64)
    for features in (seen, said):
        assert torch.allclose(features.norm(dim=1), torch.ones(len(features)), atol=1e-5)
    assert torch.allclose(said[:1], alone, atol=1e-5)
    assert torch.allclose(u, seen, atol=1e-6)
    assert torch.allclose(v, said, atol=1e-6)
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    assert torch.allclose(clip.similarity(x, ["a red star"]), seen @ said[:1].T, atol=1e-5)


def test_words_behind_the_end_and_their_order_count_as_they_should():
    clip = tiny().eval()
    with torch.no_grad():
        one, other = clip.encode_text(["red of blue", "blue of red"])
        longer = clip.text(torch.tensor([[1, 6, 3, 7, 0, 0], [1, 6, 3, 7, 5, 2]]))
    assert not torch.allclose(one, other, atol=1e-3)
    assert torch.allclose(longer[0], longer[1], atol=1e-5)


def test_the_same_seed_draws_the_same_pair_and_leaves_the_random_state():
    before = torch.get_rng_state()
    one, other = (build_clip(seed=3, image_options={"depth": 1}) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_image_tower_may_be_any_architecture_and_shares_its_start_with_a_classifier():
    options = {"channels": (4, 6, 8), "width": 12, "depth": 1}
    clip = build_clip(seed=3, tower="stem_vit", image_options=options)
    alone = build("stem_vit", n_classes=16, seed=3, own_head=True, **options)
    heads = {name for name, _ in alone.network.head.named_parameters(prefix="network.head")}
    theirs = dict(clip.image.named_parameters())
    assert heads
    assert all(torch.equal(p, theirs[name]) for name, p in alone.named_parameters() if name not in heads)
    assert clip.encode_image(torch.rand(2, 3, 64, 64)).shape == (2, 64)


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_a_scale_is_found_in_a_pair_that_is_wrapped(wrap):
    clip = tiny()
    alone = training.Contrastive().groups(wrap(clip))[1]
    assert [p is clip.logit_scale for p in alone["params"]] == [True]
    assert alone["weight_decay"] == 0.0


@pytest.mark.parametrize("wrap", [lambda clip: clip, nn.DataParallel])
def test_training_holds_the_scale_at_a_hundred_however_the_pair_is_wrapped(wrap):
    clip = tiny()
    with torch.no_grad():
        clip.logit_scale.fill_(9.0)
    assert clip.scale.item() == pytest.approx(math.exp(9.0))  # as it was loaded
    model, (x, which) = wrap(clip), colored(6, seed=1)
    tokens = clip.tokenizer([f"a picture of {list(COLORS)[i]}" for i in which.tolist()])
    knobs = {"updates": 1, "batch_size": 6, "lr": 0.01, "progress": False}
    training.train(model, Part(x, tokens, torch.arange(6)), training.Contrastive(), **knobs)
    assert clip.scale.item() == pytest.approx(100.0, rel=1e-5)


def test_contrastive_training_matches_and_keeps_the_scale_from_decay(taught):
    x, which = colored(30, seed=2)
    with torch.no_grad():
        nearest = taught.similarity(x, [f"a picture of {name}" for name in COLORS]).argmax(dim=1)
    assert (nearest == which).float().mean() == 1.0
    groups = training.Contrastive().groups(taught)
    assert [id(p) for p in groups[1]["params"]] == [id(taught.logit_scale)]
    assert groups[1]["weight_decay"] == 0.0


def test_zero_shot_logits_are_scaled_cosines_of_the_ensemble(taught):
    templates = ("{}", "a picture of {}", "picture {}")
    x, _ = colored(4, seed=3)
    found = zero_shot(taught, list(COLORS), templates)
    with torch.no_grad():
        rows = torch.stack([taught.encode_text([t.format(c) for t in templates]).mean(dim=0) for c in COLORS])
        expected = taught.scale * taught.encode_image(x) @ F.normalize(rows, dim=1).T
        assert torch.allclose(found(x), expected, atol=1e-4)
    assert torch.allclose(class_features(taught, list(COLORS), templates), F.normalize(rows, dim=1), atol=1e-5)


def test_pgd_works_on_a_zero_shot_classifier(classifier):
    x, y = colored(12, seed=4)
    x_adv = attacks.pgd(classifier, x, y, eps=0.4, steps=10)
    assert (classifier(x).argmax(dim=1) == y).all()
    assert (classifier(x_adv).argmax(dim=1) == y).float().mean() < 0.5
    assert (x_adv - x).abs().max() <= 0.4 * (1 + 1e-6) + 1e-7
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_noise_certifies_a_zero_shot_classifier(classifier):
    x, y = colored(6, seed=5)
    found = certification.certify(classifier, x, sigma=0.1, n0=20, n=100)
    assert (found.labels == y).all()
    assert 0 < found.radii.min() <= found.radii.max() <= 0.1 * 2  # no larger than what 100 samples can show


def test_a_class_of_a_zero_shot_classifier_can_be_inverted(classifier):
    made = inversion.plug_in_inversion(classifier, [0, 1, 2], size=16, steps=8, copies=2, lr=0.2, progress=False)
    with torch.no_grad():
        assert classifier(made.images).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("classes", "templates", "said"),
    [
        (["red"], ("{}",), "at least two different classes"),
        (["red", "red"], ("{}",), "at least two different classes"),
        (["red", "blue"], ("a picture",), 'one "{}" where'),
        (["red", "blue"], (), "templates must be a list of texts"),
        (["red", "grey"], ("{}",), "unknown word 'grey': did you mean green"),
        (["red", ""], ("{}",), "with a word in each, got '' among them"),
        (["red", "Red"], ("{}",), "the text tower reads 'red' and 'Red' alike"),
        (["red", "red "], ("a {}",), "the text tower reads 'red' and 'red ' alike"),
        (["red", "blue"], ("a {{}}",), "no other brace"),
        (["red", "blue"], ("a {color} {}",), "no other brace"),
        (["red", "blue"], ("a {} {",), "no other brace"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(classes, templates, said):
    with pytest.raises(ValueError, match=said):
        zero_shot(tiny(), classes, templates)


@pytest.mark.bad_input
@pytest.mark.parametrize(("classes", "templates"), [(["red", None], ("{}",)), (["red", "blue"], (3,))])
def test_names_that_are_no_texts_are_refused(classes, templates):
    with pytest.raises(TypeError, match="must be a list of texts, got"):
        zero_shot(tiny(), classes, templates)
    for some in (None, "red", 3):
        with pytest.raises(ValueError, match="must be a list of texts"):
            zero_shot(tiny(), some)
    with pytest.raises(ValueError, match="shapes must be a list of texts"):
        scene_classes("star")


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_a_pair_that_is_wrapped_is_asked_all_the_same(taught, wrap):
    x, _ = colored(3, seed=6)
    expected = zero_shot(taught, list(COLORS))(x)
    assert torch.equal(zero_shot(wrap(taught), list(COLORS))(x), expected)
    with pytest.raises(TypeError, match="must be a Clip, got Linear: build_clip"):
        zero_shot(nn.Linear(2, 2), list(COLORS))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_pair_of_another_precision_meets_the_images(taught, kind):
    clip, (x, which) = copy.deepcopy(taught).to(kind), colored(6, seed=7)
    for images in (x, x.double()):
        found = clip.similarity(images, list(COLORS))
        assert found.argmax(dim=1).tolist() == which.tolist()
        named, _ = name_by_text(clip, torch.rand(6, 2), images, list(COLORS), k=2)
        assert named.shape == (2,)


def test_towers_that_end_in_two_spaces_are_told_where_they_meet():
    clip = tiny()
    clip.image.network[3] = nn.Linear(8 * 16, 5)
    x = colored(2, seed=8)[0]
    for call in (lambda: clip.similarity(x, ["red"]), lambda: zero_shot(clip, ["red", "blue"])(x)):
        with pytest.raises(ValueError, match="must end in one space, got 5 numbers an image and 8 a text"):
            call()


@pytest.mark.bad_input
def test_bad_texts_and_images_are_refused_in_a_sentence():
    clip = tiny()
    with pytest.raises(TypeError, match=r"list of sentences, got one text: write \['red'\]"):
        clip.encode_text("red")
    with pytest.raises(ValueError, match="no sentence to encode"):
        clip.encode_text([])
    with pytest.raises(ValueError, match=r"pixels must lie in \[0, 1\]"):
        clip.encode_image(torch.rand(1, 3, 16, 16) * 300)
    with pytest.raises(ValueError, match="has no published weights"):
        build_clip("small_clip", pretrained="openai")
    with pytest.raises(ValueError, match="scale must be a positive number"):
        Clip(clip.image, clip.text, clip.tokenizer, scale=-1.0)


class Elsewhere(nn.Module):
    """A text tower whose parameters lie on a device without numbers, and that notes where it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, device="meta"))

    def forward(self, tokens):
        self.asked_on = tokens.device.type
        return torch.ones(len(tokens), 8)


def test_tokens_go_to_the_text_tower_and_features_to_the_image_tower():
    clip = tiny()
    clip.text = Elsewhere()
    assert clip.encode_text(["red"]).device.type == "cpu"
    assert clip.text.asked_on == "meta"


@pytest.mark.bad_input
@pytest.mark.parametrize("number", [-1, 5000])
def test_tokens_of_another_tokenizer_are_refused(number):
    clip = tiny()
    tokens = clip.tokenizer(["red"])
    tokens[0, 0] = number
    with pytest.raises(ValueError, match=rf"(reach from {number}|to {number},).*the text tower knows 0 to"):
        clip.encode_tokens(tokens)
    with pytest.raises(ValueError, match="make them with its own tokenizer"):
        training.train(clip, Part(torch.rand(1, 3, 16, 16), tokens, torch.arange(1)), training.Contrastive(),
                       updates=1, batch_size=1, lr=0.1)  # fmt: skip


def test_scene_classes_have_their_article():
    names = scene_classes()
    assert (names[0], names[10], len(names)) == ("a disk", "an arrow", 16)
    assert all("{}" in template for template in SCENE_TEMPLATES)
    rows = vocabulary()([template.format(name) for template in SCENE_TEMPLATES for name in names])
    assert len(rows.unique(dim=0)) == 6 * 16
