# %% [markdown]
# # The world of scenes
#
# **The question of this page: what do the networks of this book look at, and what do we know about it?**
#
# Photographs come without the truth. Nobody can say which pixels of one are the object, how its color was chosen, or
# whether the meadow behind the cow is there by chance. *Scenes* are images drawn by a program, so all of this is known: an
# exact mask for every object, a table of attributes, a true sentence, and a dial for every bias one might want. Several
# chapters do on scenes what the thesis does on photographs, and there the effect can be measured and not only seen.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - the vocabulary: sixteen shapes, eleven colors, four textures, eight backgrounds;
# - what is known about a scene;
# - knobs: from easy to hard, from unbiased to biased, with sliders that need no kernel;
# - experiments no photograph allows: change one attribute and nothing else;
# - the frozen distributions, and how to get a million images of one.
#
# Reading takes about ten minutes. The notebook runs in a few seconds on two CPU cores.
# :::

# %% [setup]

# %% tags=["hide-input"]
from dataclasses import replace

import torch

from thesis_kit.data import scenes
from thesis_kit.data.scenes import vocabulary
from thesis_kit.show import scene_pictures as figures

V1 = scenes.DISTRIBUTIONS["scenes.v1"]

# %% [markdown]
# ## The vocabulary
#
# A scene is composed from named parts. Every shape is a *signed distance function* $d(x, y)$, negative inside and positive
# outside; how much of a pixel the shape covers follows from its distance to the outline, in units of a pixel's width $h$:
#
# $$ \text{coverage} = \min\big(1, \max\big(0, \tfrac{1}{2} - d / h\big)\big) . $$
#
# This coverage is the mask, so masks are exact at every resolution and soft where a pixel is shared.

# %% tags=["hide-input"]
COLORS = ["red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink"] * 2
shapes = scenes.compose(
    {"shape": shape, "color": color, "size": 0.85, "tint": "slate"}
    for shape, color in zip(vocabulary.SHAPES, COLORS, strict=True)
)
figures.sheet(
    scenes.render(shapes, 96).images, vocabulary.SHAPES, columns=8, label="Figure 0.1",
    caption="The sixteen shapes. Every four in a row share a theme: celestial, card, sign, garden. Nothing in the pixels "
    "holds a theme together; only language does.",
    alt="Sixteen shapes with their names: " + ", ".join(vocabulary.SHAPES) + ".",
)

# %% tags=["hide-input"]
looks = [{"shape": "heart", "color": color, "size": 0.85, "tint": "slate"} for color in vocabulary.COLORS]
looks += [{"shape": "square", "color": "green", "texture": t, "size": 0.85, "tint": "slate"} for t in vocabulary.TEXTURES]
looks += [{"shape": "star", "color": "red", "size": 0.4, "background": b, "tint": "azure"} for b in vocabulary.BACKGROUNDS]
looks += [{"shape": "ring", "color": "orange", "size": 0.5, "tint": t} for t in vocabulary.TINTS]
names = [*vocabulary.COLORS, *vocabulary.TEXTURES, *vocabulary.BACKGROUNDS, *vocabulary.TINTS]
figures.sheet(
    scenes.render(scenes.compose(looks), 96).images, names, columns=8, label="Figure 0.2",
    caption="Eleven colors, four textures, eight kinds of background in one tint, and six tints.",
    alt="Objects in every color and texture and backgrounds of every kind and tint, each with its name.",
)

# %% [markdown]
# A color never meets a tint it cannot be told from: black on night, say, is refused.

# %%
try:
    scenes.compose([{"shape": "star", "color": "black", "tint": "night"}])
except scenes.ImpossibleScene as refusal:
    print(refusal)

# %% [markdown]
# ## What is known about a scene
#
# One call draws scenes with everything known about them. The masks add up to one at every pixel, each object's where it is
# seen, the background's the rest. The sentence is made from the table of attributes, in words that vary, and true.

# %%
drawn = scenes.DISTRIBUTIONS["scenes.v1-pairs"].draw(100, size=64, seed=21)
drawn.table.describe(3)

# %% tags=["hide-input"]
shown = [vocabulary.RELATIONS.index(relation) for relation in ("none", "left of", "inside", "alike")]
chosen = [int((drawn.table.relation == relation).int().argmax()) for relation in shown]
figures.truth_figure(
    drawn[torch.tensor(chosen)], label="Figure 0.3",
    caption="Four scenes of the distribution scenes.v1-pairs with the exact mask of every object and of the background, "
    "and a sentence about each.",
)

# %% [markdown]
# ## Knobs
#
# A *distribution* draws tables; its knobs say how hard and how biased its scenes are. Move the first slider: the objects
# shrink while all else stays. Move the second: the background becomes a sign of the class. At 0 every class is seen before
# every background equally often; at 1 a network could name the class without looking at the object at all.

# %% tags=["hide-input"]
figures.knob_slider(
    lambda size: replace(V1, name="sized", size=(size, size)).draw(16, 48, seed=4), [0.2, 0.35, 0.5, 0.65, 0.8],
    name="size of the object", label="Figure 0.4", start=3,
    caption="The same sixteen scenes with objects of growing size, as a share of the image's width.",
)

# %% tags=["hide-input"]
by_class = V1.sample(torch.arange(2000), seed=5).shape[:, 0]
rows = torch.cat([(by_class == shape).nonzero()[:8, 0] for shape in (0, 4, 8, 12)])


def correlated(strength):
    distribution = replace(V1, name="tied", correlation=strength)
    table = distribution.sample(torch.arange(2000), seed=5)[rows]
    return scenes.Scenes(distribution, table, scenes.render(table, 48))


figures.knob_slider(
    correlated, [0.0, 0.25, 0.5, 0.75, 1.0], name="correlation of background and class", label="Figure 0.5",
    caption="Four classes, a row each. At 0 background and class have nothing to do with each other; at 1 the "
    "background gives the class away.",
)

# %% [markdown]
# ## Change one thing
#
# The table is data: edit a column and draw again. Everything else, down to the clouds and the noise, stays as it was. On
# photographs this experiment does not exist.

# %%
table = V1.sample(torch.tensor([3]), seed=14)
edits = {
    "as drawn": {},
    "another color": {"color": (table.color + 4) % 11},
    "another texture": {"texture": (table.texture + 2) % 4},
    "another shape": {"shape": (table.shape + 1) % 16},
    "turned": {"rotation": table.rotation + 0.6},
    "smaller": {"size": table.size * 0.6},
    "another background": {"background": torch.tensor([vocabulary.BACKGROUNDS.index("waves")])},
    "light from the left": {"light": torch.tensor([3.1])},
}
images = torch.cat([scenes.render(replace(table, **edit), 96).images for edit in edits.values()])

# %% tags=["hide-input"]
figures.sheet(
    images, list(edits), columns=4, label="Figure 0.6", caption="One scene, and what one edit of its table does.",
    alt="One scene eight times, with one attribute changed each time: " + ", ".join(edits) + ".",
)

# %% [markdown]
# ## The frozen distributions
#
# Results and weights rest on distributions by name. A name is frozen: its scenes never change, and a better one gets a new name.
# Scene number $i$ of a stream is a function of the distribution, a seed and $i$ alone, in any batch and on any device, so a test
# set needs no file and training sees fresh images at every step.
#
# In the table, a *size* is a share of the image's width, a *turn* the largest rotation in degrees, and *noise* the largest
# standard deviation of the pixels' noise. Two pairs divide a vocabulary between them: `-a` and `-b` the shapes, `-outdoors` and
# `-indoors` textures and backgrounds. *Layouts* are the shares of scenes with one object, with two in a relation, and with a
# group of two or three alike; *words* is the share of scenes over which the name of a class, drawn by lot, is written.

# %% tags=["hide-input"]
figures.distributions_table(scenes.DISTRIBUTIONS)

# %% tags=["hide-input"]
samples = {name: one.draw(8, 64, seed=8).images for name, one in scenes.DISTRIBUTIONS.items()}
figures.sheet(
    torch.cat(list(samples.values())), columns=8, label="Figure 0.7",
    caption="Eight scenes of each distribution, a row each, in the order of the table.",
    alt="Sample scenes of every frozen distribution: " + ", ".join(samples) + ".",
)

# %% [markdown]
# Drawing is fast enough to be part of training, and the same call gives the same images. A hash is taken over the knobs and the
# first 256 rows of attributes, so a distribution that changed under its name would be noticed:

# %% tags=["nbval-check-output"]
part = V1.part(256, size=32, seed=0)
print(len(part), "images,", len(V1.classes), "classes,", tuple(part.x.shape[1:]))
print("the same images again:", torch.equal(part.x, V1.part(256, size=32, seed=0).x))
for name, one in scenes.DISTRIBUTIONS.items():
    print(f"{name:22}", one.data_hash()[:12])

# %% [markdown]
# For training, `tk.data.load("scenes.v1", seed=0, size=32)` gives an endless stream of training images, a validation part of
# that seed's own, and a test part that all seeds share.
