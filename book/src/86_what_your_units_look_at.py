# %% [markdown]
# # What do my network's units look at?
#
# **You have a network of images. You would like to see what one of its units answers to, where in a picture it does so, and whether what
# you see says anything about the unit.**
#
# A *unit* is one number inside the network: a hidden unit of an MLP, a channel of a convolution, an entry of a query. There are three ways
# to look at it: the image that excites it most, the strongest among real images, and where in these it fires. Each is one call, and all
# three come with two controls. What was found by them is in [the chapter on Vision Transformers](05_features.ipynb).
#
# :::{admonition} What you need
# :class: tip
# - Your model as a `torch.nn.Module` from images to anything, as it is. Of timm, torchvision or open_clip nothing needs to be changed, and no
#   class is known by its name: the structure is looked at.
# - A few hundred images of the kind you care about, a float tensor (n, 3, h, w) in [0, 1]. Labels are not needed.
#
# The notebook runs in less than a minute on one CPU core.
# :::

# %% [setup]

# %% [markdown]
# ## What can be asked for
#
# Your network here is a small Vision Transformer, a plain model of timm's. Put the normalization inside, so that pixels in [0, 1] go in, and
# list its *sites*:

# %%
from thesis_kit import features, recording
from thesis_kit.features import scores
from thesis_kit.show.tables import table
from thesis_kit.show.unit_pictures import triples_figure

network = tk.zoo.load("vit-scenes64").network  # a plain model of timm's, as you may have trained it
model = tk.Classifier(network, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], size=64).to(session.device)
print(recording.sites(model))

# %% [markdown]
# A site arranges what stands there: tokens in order, queries by head, maps with their channels first. `"blocks.5.hidden"` is the same
# thing in a ViT of timm's, in a gated one, and, under its own module's name, in CLIP's: what goes into the second layer of the MLP. A layer of `named_modules()` may be given in its place.
#
# | your model | where to look |
# |---|---|
# | a ViT, an MLP-Mixer, a Swin, a ConvNeXt | `….hidden`, and `….residual` behind a block |
# | a ResNet, an EfficientNet | `….hidden`, maps before the block's last convolution |
# | q, k, v of a Swin | refused: they belong to windows |
# | a network of your own | any layer by its name; print the list first |
# | several outputs, or inputs that are no images | `recording.record(…, run=…)` says what is to be called |
#
# ## Which images excite a unit?

# %%
drawn = tk.data.load("scenes.v1", session.seed, size=64, n_train=1, n_validation=1, n_test=300).test.to(session.device)
images = drawn.x  # yours: a float tensor (n, 3, h, w) in [0, 1]
SITE = "blocks.5.hidden"
UNITS = [0, 96, 192, 288]  # evenly spaced, none picked

top = recording.top_examples(model, images, SITE, k=3, units=UNITS)
rows = [
    (f"unit {unit}", ", ".join(map(str, index)), ", ".join(f"{v:.1f}" for v in value))
    for unit, index, value in zip(UNITS, top.index.tolist(), top.value.tolist(), strict=True)
]
table(rows, (SITE, "strongest images, by number", "mean over patches"))

# %% [markdown]
# `top_examples` takes a data loader as well as a tensor, and holds no more than a batch of what stands at the site; a million images need
# no more memory than a thousand. `pool="max"` asks for the strongest patch in place of the mean.
#
# ## What excites it most?
#
# `visualize` climbs the unit from noise. One line a unit, all in one go, and every pass ends at the site:

# %%
EFFORT = {"method": "fourier", "steps": 32, "copies": 2}
made = features.visualize(model, SITE, UNITS, **EFFORT)
print(made)

# %% [markdown]
# | method | what it is | |
# |---|---|---|
# | `"paper"` | pixels under jitter, ColorShift and noise, as the paper's text says {cite:p}`ghiasi2022vit` | 400 steps of 8 copies |
# | `"code"` | the same by the constants of its released code | 400 of 8 |
# | `"fourier"` | frequencies in place of pixels {cite:p}`olah2017`: smoother and sooner there | 512 of 1 |
# | `"maco"` | phases alone, at the mean spectrum of your images {cite:p}`fel2023maco` | 256 of 6 |
#
# Left out, steps and copies are as published, as in the last column; this page takes few, so that it runs anywhere.
#
# ## All three, with two controls
#
# `triples` makes the three views, and then the same again twice. *Random directions* of the same site are what units would be if their
# axes meant nothing. *Random weights* are the same units of a network of the same architecture that learned nothing.

# %%
found = features.triples(model, images, SITE, UNITS, strongest=3, controls=2, **EFFORT)

# %% tags=["hide-input"]
triples_figure(
    found, label="Figure 1",
    caption=f"Four hidden units of the last block: the image that excites the unit most, its three strongest of {len(images)} scenes, and the same three, "
    "bright where the unit fires. Below, two random directions of the same layer, and two units of a network with random weights.",
    alt="Four units, two random directions and two units of random weights, each with its optimum, its strongest scenes and its maps.",
)

# %% [markdown]
# Now try to name the units. Then try to name the random directions. If that goes as well, what you saw belongs to the layer and not to
# its units. If it goes as well in the last rows, it belongs to the images.
#
# ## How much is in it, over all units?
#
# Four units prove nothing, and the best four of thousands even less. Here is a number over every unit: how alike does an independent network
# find the images that excite a unit most? It is the mean cosine between its features of the ten strongest, the mean of all images taken off:
# *monosemanticity* {cite:p}`pach2025`, and 0 is chance. With `strata=` the mean of a group is taken off, so that sharing a tint, say, counts for nothing. Take any encoder that has nothing to do with your network.

# %%
encoder = tk.zoo.load("verifier-scenes64", device=session.device)
embedded = recording.stream(encoder, images, "penultimate", reduce="rows")["penultimate"]
twin = features.random_twin(model, seed=0)
a, untrained = (recording.stream(m, images, SITE, reduce="rows")[SITE] for m in (model, twin))
kinds = {"units": a, "rotated basis": features.rotated(a, seed=0), "random weights": untrained}


def alike(rows):
    """Mean over the living units, by the images that are asked about."""
    return lambda chosen: scores.monosemanticity(rows[chosen], embedded[chosen], k=10).nanmean().item()


measured = {called: features.over_images(alike(rows), len(images)) for called, rows in kinds.items()}
gap = features.over_images(lambda chosen: alike(a)(chosen) - alike(kinds["rotated basis"])(chosen), len(images))
lines = [(called, str(measured[called]), f"{scores.dead(rows).sum()} of {rows.shape[1]}") for called, rows in kinds.items()]
table(lines, (SITE, "monosemanticity (95%)", "dead"))

# %%
print(f"units less a rotated basis: {gap}; n = {len(images)} images, left out a twentieth at a time")

# %% tags=["nbval-check-output"]
print("units are more alike than with random weights:", measured["units"].low > measured["random weights"].high)

# %% [markdown]
# Here the units are far above random weights, and above the rotated basis by little. The intervals are about other images, for
# this one network, one rotation and one drawing of random weights. Only several networks, trained independently, say something
# about a kind of network: [chapter 5](05_features.ipynb) asked five ViTs, over more scenes and without what their tint explains, and there the
# rotated basis came out above the units. A unit that is the same on all images is *dead* and has no score; it is counted, and not averaged away.
#
# What the rows can tell:
#
# | you see | it says |
# |---|---|
# | units like random weights | nothing was learned that this encoder sees; another layer, another encoder? |
# | units like the rotated basis | the layer has learned something, and its axes are as good as any others |
# | units above both | the axes mean something: now look at single ones |
#
# With labels, `scores.purity` and `scores.selectivity` ask about classes; with attributes, `scores.best_concept` chooses a concept on half of the
# images and judges on the other. `scores.kurtosis` says how seldom units fire. Give each the same three rows.
#
# ## When it goes wrong

# %% tags=["nbval-check-output"]
import textwrap

mistakes = {
    "no such site": lambda: features.visualize(model, "blocks.5.hiden", [0]),
    "no such unit": lambda: features.visualize(model, SITE, [384]),
    "too few images": lambda: recording.top_examples(model, images[:2], SITE, k=3),
    "no patches": lambda: features.triples(model, images, "penultimate", [0], steps=1, copies=1),
    "pixels from 0 to 255": lambda: features.maps(model, 255 * images[:1], SITE, [0]),
}
for mistake, call in mistakes.items():
    try:
        call()
    except ValueError as error:
        print(textwrap.fill(f"{mistake}: {error}", 100, subsequent_indent="    "))

# %% [markdown]
# A unit behind a ReLU that is off has no gradient, and its image would show noise and no unit. If none of those that were asked for has one,
# `visualize` refuses; if some have none, it names them. Then ask for the layer before the ReLU.
#
# ## Bigger, and from the shell
#
# ```bash
# thesis-kit visualize --model vit_base_patch16_224 --list
# thesis-kit visualize --model vit_base_patch16_224 --pretrained --layer blocks.6.hidden --units 0-23 --folder pictures --sheet units.png
# thesis-kit visualize --model vit-scenes64 --layer blocks.3.hidden --units 0-7 --method fourier
# ```
#
# The first shows what can be named as a layer. The second looks for strong images among the pictures of a folder, and needs a network
# connection once, for the weights; without `--pretrained` the weights are random, and that is the control. The third takes a member of
# [the zoo](zoo.md). Each writes a contact sheet, with the controls below the units, and beside it a JSON:
#
# | key | what it holds |
# |---|---|
# | `model`, `weights`, `version` | what was looked at, a hash of its weights, and the version of the package |
# | `site`, `units`, `settings`, `n` | what was asked, how, and among how many images |
# | `rows` | for each unit and control its name, what its optimum and its strongest images give, which these are, and its maps |
# | `passes`, `seconds` | what the optima cost |
#
# On a GPU move the model there, and images follow. An optimum takes `steps` × `copies` passes to the site and back: `print(made)` says how long.
# `checkpoint="units.pt"` keeps the state every half minute, and the same call goes on where it was.
#
# ## Where to go on
#
# - [The chapter on Vision Transformers](05_features.ipynb): units of six blocks under a slider, class tokens, masks that leak, and fine detail.
# - [How to see what your own network has learned](83_see_your_network.ipynb): the same engine asked for classes and directions.
# - [What does my CLIP see?](85_what_your_clip_sees.ipynb) puts names to units.
# - [The package](api/features.md) lists all scores and controls.
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
