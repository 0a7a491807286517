# %% [markdown]
# # What does my CLIP see?
#
# **You have a network of images and text. You would like to see what it thinks of when it is told a sentence, to make a classifier of it
# and doubt it, and to put names to its units.**
#
# This page does so with a small pair of the book's own. Each call takes any model that open_clip knows by name. Why it works, and what was
# found, is in [the chapter on CLIP](06_clip.ipynb).
#
# :::{admonition} What you need
# :class: tip
# - A model of open_clip by its name and the tag of its weights, with a network connection once: `tk.models.build_clip("ViT-B-16",
#   pretrained="openai")`. That needs the extra `[clip]`. Or `tk.models.Clip(image, text, tokenizer)` around two towers of yours.
# - For the first part a GPU, if the model is a large one. For the last, a few hundred images of the kind you care about.
#
# The notebook runs in about a minute on two CPU cores.
# :::

# %% [setup]

# %% [markdown]
# ## Tell it a sentence

# %%
import torch

from thesis_kit import language, recording
from thesis_kit.chapters.clip import figures
from thesis_kit.data.scenes.vocabulary import COLORS
from thesis_kit.show.tables import table

clip = tk.zoo.load("clip-scenes64", device=session.device)
size = 64  # clip.image.size[0] for a model of open_clip

prompts = ["a red disk", "a green disk", "three white stars"]
quick = language.shortened("small", [20, 20, 30], copies=2)
drawn = language.invert_prompts(clip, prompts, size=size, schedule=quick, progress=False)
print(drawn.images.shape)

# %% tags=["hide-input"]
figures.prompts_figure(
    {"": list(drawn.images)}, prompts, label="Figure 1", caption="Three sentences as the pair draws them, with no contrast stretched afterwards.",
    alt="Three pictures, drawn for a red disk, a green disk and three white stars.",
)

# %% [markdown]
# `schedule="2024"` has the published constants {cite:p}`kazemi2024clip`: 44,200 passes a picture, for a GPU. `"small"` is ours. A word that
# the tokenizer does not have is refused, with near ones offered, and so is a sentence longer than the context. From the shell:
#
# ```bash
# thesis-kit invert --clip ViT-B-16 --tag openai --prompt "a red star" --quality published --precision float16
# ```
#
# ## Doubt it
#
# That the pair likes its own drawing says nothing: it was changed until it did. See whether each picture lies nearest to *its* sentence among all of
# them, and draw the same with random weights. What both show comes from the method. Then ask a network that took no part, as
# [the page on seeing your own network](83_see_your_network.ipynb) does.

# %%
untrained = tk.models.build_clip("small_clip", seed=1).to(session.device).eval()
control = language.invert_prompts(untrained, prompts, size=size, schedule=quick, progress=False)
with torch.no_grad():
    own = clip.similarity(drawn.images.to(session.device), prompts).cpu()
    other = clip.similarity(control.images.to(session.device), prompts).cpu()
rows = [
    (prompt, prompts[int(own[i].argmax())], f"{own[i, i]:.2f}", f"{other[i, i]:.2f}") for i, prompt in enumerate(prompts)
]
table(rows, ("told", "nearest of the three", "cosine", "of the control's picture"))

# %% [markdown]
# ## Make a classifier of it
#
# `zero_shot` takes names of classes and templates, and what comes out is an ordinary classifier: attacks, certificates and
# [the honest evaluation](82_honest_robustness.ipynb) work on it.

# %% tags=["nbval-check-output"]
scenes = tk.data.scenes.DISTRIBUTIONS["scenes.v1-pairs"].draw(200, size, seed=5, device=session.device)
named = language.zero_shot(clip, language.scene_classes([f"{color} shape" for color in COLORS]))
right = tk.evaluation.correct(named, (scenes.images, scenes.table.color[:, 0]))
print(f"the color of the main object: {right.double().mean():.0%} of {len(right)} scenes are named rightly, guessing names {1 / len(COLORS):.0%}")

# %% [markdown]
# ## Name its units
#
# `name_by_text` takes a unit's strongest images and finds the words that fit them better than other images
# {cite:p}`oikarinen2023dissect`. The units may be of another network; the pair only supplies the words. A score is the mean
# logarithm of how well the words fit the strongest images, less that of how well they fit all: higher is better, and below zero
# is usual. The control gives every image's activations to another image:

# %%
words = ["a red shape", "a green shape", "a blue shape", "a white shape", "a black shape", "two shapes", "three shapes", "bricks", "waves"]
site = recording.sites(clip.image).of_kind("hidden")[-1].name
activations = recording.stream(clip.image, scenes.images, site, reduce="rows")[site]
names, scores = language.name_by_text(clip, activations, scenes.images, words, k=20)
order = torch.randperm(len(activations), generator=torch.Generator().manual_seed(0)).to(activations.device)
_, by_chance = language.name_by_text(clip, activations[order], scenes.images, words, k=20)
units = range(0, 384, 64)  # evenly spaced, none picked
rows = [(f"{site} {unit}", words[int(names[unit])], f"{scores[unit].max():.2f}", f"{by_chance[unit].max():.2f}") for unit in units]
table(rows, ("unit", "named", "score", "score with images exchanged"))

# %% [markdown]
# A name is worth something where its score is well above the last column, which need not be so in every row. Every unit gets a
# name, whether it answers to anything or not.
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
