# %% [markdown]
# # Plug-In Inversion
#
# **The question of this chapter: what does a class look like to a network?**
#
# The first half of this book asked what a network does when somebody works against it. This half asks what it has learned. The
# most direct way is to ask the network to draw: show me an *arrow*. A classifier cannot draw, but it can judge, and its
# judgment has a gradient. Start from noise, and let the gradient change the pixels until the network is sure.
#
# What comes out, done plainly, is noise that the network is sure of. For years the remedy was a penalty for every
# kind of ugliness, with weights tuned for each network. The thesis does without: *Plug-In Inversion* leaves the loss
# alone and changes what the network sees {cite:p}`ghiasi2022pii,ghiasi2022thesis`. The same settings are meant to fit any
# network, with or without convolutions.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - why the plain way gives noise, and what the penalties do about it;
# - four augmentations, and what each does to an image;
# - one class growing from a few pixels to a picture, with a slider;
# - the same class as a convolutional network, a transformer and an MLP draw it;
# - a blind test: can *you* name what the networks drew?
# - what the thesis claims, and what independent networks say when asked to name the drawings.
#
# Reading takes about 30 minutes; running the notebook takes about a minute and a half on two CPU cores.
# :::

# %% [setup]

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown

from thesis_kit import evaluation, inversion, synthesis
from thesis_kit.experiments.sources import class_names, inverted_network, verifying_networks
from thesis_kit.reporting import inversion as figures
from thesis_kit.reporting import results
from thesis_kit.reporting.ledger import claims_table

P = session.chapter("inversion")
CALLED = {"resnet": "ResNet", "vit": "ViT", "mixer": "MLP-Mixer", "convnext": "ConvNeXt", "robust": "robust ResNet"}
networks = {name: inverted_network(session, name) for name in CALLED}
test = session.splits("inversion", task="task").test
names = class_names(P.task)
chosen = [P.classes[place] for place in P.pictured]
CHOSEN = [names[place] for place in P.pictured]

# %% [markdown]
# ## A network that draws
#
# Let $f$ be a classifier from images to logits, $y$ a class and $L$ the cross-entropy. *Class inversion* looks for
#
# ```{math}
# :label: eq-inversion
# \hat x \;=\; \arg\min_{x \in [0,1]^{3 \times R \times R}} \; L\big(f(x),\, y\big) + \mathcal R(x) ,
# ```
#
# where $\mathcal R$ stands for everything one would like an image to be. Begin with $\mathcal R = 0$:

# %%
plain = inversion.invert_with_penalties(networks["resnet"], chosen, size=P.size, steps=7 * P.steps, jitter=0)
sure = networks["resnet"](plain.images).softmax(dim=1)[range(len(chosen)), chosen]
print("the network's own confidence:", ", ".join(f"{p:.3f}" for p in sure.tolist()))

# %% tags=["hide-input"]
figures.picture_grid(
    {"ResNet": plain.images}, CHOSEN, label="Figure 4.1",
    caption="Four classes by the gradient of the cross-entropy alone. The network that was asked is certain of each.",
    alt="Four squares of colored noise. No shape can be seen.",
)

# %% [markdown]
# The network is certain and we see nothing, so one of us is not looking at shapes. You have met these images before: they
# are [adversarial examples](01_defenses.ipynb) that started from noise instead of a photograph. There are very many images that a
# network takes for an arrow, nearly none of them looks like one, and the gradient finds the nearest.
#
# Earlier work therefore put into $\mathcal R$ what noise has and images have not. *Total variation* and the $\ell_2$ norm punish
# differences between neighbors {cite:p}`mahendran2015`; *DeepInversion* asks that the statistics inside the network be those that its
# BatchNorm layers remember from training {cite:p}`yin2020deepinversion`. Both help, and both have a price: a weight for every
# penalty, found by trial for every network; and transformers have no BatchNorm to ask.
#
# ## Change the question, not the loss
#
# Think of what noise cannot survive. If the image is *moved* by some pixels before the network looks, a pattern that hits the grid of
# its filters just so is lost; a shape is not. If its *colors* are stretched and shifted, a pattern that depends on exact values
# is lost; a shape is not. So let the network never see the image itself but copies of it, changed at random, anew in every step:
#
# **Jitter** rolls the image by up to a seventh of its side. **Ensemble** makes $e$ copies of it, over which the loss is averaged.
# **ColorShift** draws for every copy and color channel a factor and a summand,
#
# ```{math}
# :label: eq-colorshift
# x' = \sigma\, x + \mu , \qquad \mu \sim U(-\alpha, \alpha), \quad \log \sigma \sim U(-\beta, \beta), \qquad \alpha = \beta = 1 .
# ```
#
# Here is what they do to a scene:

# %% tags=["hide-input"]
seen = synthesis.preview(
    test.x[:1], [synthesis.Jitter.for_size(P.size), synthesis.Ensemble(5), synthesis.ColorShift(1.0, 1.0)]
)
figures.picture_grid(
    {"": [test.x[0], *seen[0]]}, ["scene", *(f"copy {k}" for k in range(1, 6))], label="Figure 4.2",
    caption="A scene, and five copies of it as the network sees them in one step: rolled alike, recolored each in its own way. "
    "What leaves the range of colors is cut off in print; the network sees it.",
    alt="A scene and five copies, shifted by some pixels around the edges and in five quite different sets of colors.",
)

# %% [markdown]
# The other two concern not what the network sees but what may change. **Zoom** starts with a small image and enlarges it from stage
# to stage, so that large forms are settled before there are pixels for small ones. **Centering** pads each stage's image with fresh
# noise, so that what has been drawn stays in the middle and the rest has to fit around it. Without them, nothing tells the network
# that a picture has *one* arrow. Noise of 64 × 64 pixels has room for a dozen, and each lowers the loss a little.
#
# That is all. {eq}`eq-inversion` keeps $\mathcal R = 0$.
#
# :::{admonition} Plug-In Inversion
# :class: important
# For sizes $r = \tfrac28 R, \tfrac38 R, \ldots, R$: enlarge what there is by half of the growth, put it into the middle of fresh noise
# of size $r$, and then, 400 times: roll it, make $e$ copies, recolor each, ask the network, and take a step of Adam against the mean
# cross-entropy, at a rate that falls to zero by a cosine. Clip to $[0, 1]$.
# :::
#
# It is one call, and takes any model from pixels in $[0, 1]$ to logits:

# %%
drawn = inversion.plug_in_inversion(networks["resnet"], chosen, size=P.size, steps=P.steps, copies=P.copies, lr=P.lr)
print(drawn)

# %% tags=["hide-input"]
figures.stages_slider(
    [images for _, images in drawn.snapshots], CHOSEN, label="Figure 4.3",
    caption="Four classes at the end of each of seven stages, by Plug-In Inversion of the same network as in Figure 4.1.",
)

# %% [markdown]
# ## One setting, every architecture
#
# Nothing in the method speaks of convolutions. So give it networks without: a Vision Transformer, which cuts the image into 8 × 8 patches and
# lets them attend to one another {cite:p}`dosovitskiy2021`, an MLP-Mixer, which has two kinds of linear layers and nothing else
# {cite:p}`tolstikhin2021`, and a ConvNeXt {cite:p}`liu2022convnet`. All were trained on the same stream of scenes, without a teacher; [the zoo](zoo.md) has
# their scores.

# %%
many = {
    called: inversion.plug_in_inversion(
        networks[name], chosen, size=P.size, steps=P.steps, copies=P.copies, lr=P.lr
    ).images
    for name, called in CALLED.items()
    if name != "resnet"
}

# %% tags=["hide-input"]
figures.picture_grid(
    {"ResNet": drawn.images, **many}, CHOSEN, label="Figure 4.4",
    caption="Four classes as five networks draw them, by one setting. The last network was trained adversarially.",
    alt=f"A row a network, {', '.join(CALLED.values())}; a column a class, {', '.join(CHOSEN)}.",
)

# %% [markdown]
# ## Which part does what
#
# Three of the augmentations can be left out one by one, which makes eight combinations. Here is one class through all eight:

# %%
eight = {
    name: inversion.plug_in_inversion(
        networks["resnet"], chosen[:1], size=P.size, steps=P.steps, copies=P.copies, lr=P.lr,
        color=float(on["color"]), zoom=on["zoom"], center=on["center"],
    ).images[0]
    for name, on in inversion.combinations().items()
}

# %% tags=["hide-input"]
ways = {"neither": ("none", "color"), "zoom": ("zoom", "color+zoom"), "center": ("center", "color+center"),
        "both": ("zoom+center", "pii")}
figures.picture_grid(
    {"colors as they are": [eight[without] for without, _ in ways.values()],
     "ColorShift": [eight[colored] for _, colored in ways.values()]},
    list(ways), label="Figure 4.5",
    caption=f"One class, {CHOSEN[0]}, with each of ColorShift, zoom and centering on or off. Jitter is always on.",
    alt=f"Two rows, without and with ColorShift, and four columns, {', '.join(ways)}: eight drawings of one class.",
)

# %% [markdown]
# ## Is it really the class?
#
# You may see an arrow because the caption says so. So let somebody judge who has not read it: *verifiers*, networks that took no part.
# One has another architecture and another seed, one is also adversarially trained, so that it does not fall for patterns that
# fool networks of all kinds. $V$ is the share of drawings that they name rightly.

# %%
verifiers = list(verifying_networks(session).values())
everything = {"cross-entropy alone": plain.images, "ResNet": drawn.images, **many}
for name, images in everything.items():
    share = evaluation.recognized(verifiers, images, torch.tensor(chosen)).mean().item()
    fine = evaluation.high_frequency_share(images).mean().item()
    print(f"{name:24} V = {share:4.0%}   energy in high frequencies {fine:4.0%}")

# %% [markdown]
# Four drawings say little; below are hundreds. But first judge for yourself:

# %% tags=["hide-input"]
blind = inversion.plug_in_inversion(
    networks["robust"], P.classes, size=P.size, steps=P.steps, copies=P.copies, lr=P.lr, seed=1
)
figures.blind_grid(
    blind.images, names, label="Figure 4.6",
    caption="All classes as the robust network draws them, in an order that you do not know. Name them, then open the answers.",
)

# %% [markdown]
# ## What hundreds of drawings say
#
# From here on the numbers are recorded.

# %% tags=["hide-input"]
recorded = results.load_result("inversion.scenes")
Markdown(f"*{recorded.provenance()}.*")

# %% tags=["hide-input"]
ALL = {**CALLED, "deit": "distilled ViT", "resnet-plain": "ResNet, plain", "vit-plain": "ViT, plain",
       "mixer-plain": "MLP-Mixer, plain"}
SHOWN = {place: names[place] for place in P.pictured}
figures.recorded_grid(
    recorded, {f"pii@{name}": called for name, called in ALL.items()} | {"real": "real scenes"}, SHOWN, label="Figure 4.7",
    caption="Four classes as nine networks draw them, by one setting, and as they are in scenes. V is the share of all recorded "
    "drawings of the network that independent networks name rightly. *Plain* networks were trained on scenes as they are, the "
    "others under other colors, blur and noise.",
)

# %% tags=["hide-input"]
figures.recognition_figure(
    recorded, {**ALL, "random": "random weights"}, methods=("ce", "ce+jitter", "pii", "real"), label="Figure 4.8",
    caption="Share of drawings that independent networks name rightly, with 95% intervals: by cross-entropy alone, with jitter too, by "
    "Plug-In Inversion with one setting, and real scenes beside them.",
)

# %% [markdown]
# The interval speaks of these drawings of *this* network, not of all networks of its kind: there is one of each.
#
# %% tags=["hide-input"]
figures.recorded_grid(
    recorded,
    {"ce@resnet": "cross-entropy", "ce+jitter@resnet": "and jitter", "tv+l2@resnet": "TV + ℓ₂", "deep@resnet": "DeepInversion",
     "pii@resnet": "Plug-In Inv."},
    SHOWN, label="Figure 4.9",
    caption="Four classes as the ResNet draws them by five methods. Those with penalties were tuned on this network.",
)

# %% [markdown]
# ### Each part by itself
#
# With eight combinations, the effect of a part is the mean over the four with it minus the mean over the four without:

# %% tags=["hide-input"]
special = {"none": "jitter alone", "pii": "all three"}
ways = {way: special.get(way, way.replace("+", " + ")) for way in inversion.combinations()}
figures.recorded_grid(
    recorded, {f"{way}@resnet": said for way, said in ways.items()}, SHOWN, label="Figure 4.10",
    caption="Four classes by every combination of ColorShift, zoom and centering. Jitter is always on.",
)

# %% tags=["hide-input"]
figures.effects_figure(
    recorded, label="Figure 4.11",
    caption="Left: the share of drawings that are named rightly, for every combination. Right: what each augmentation adds, with 95% "
    "intervals.",
)

# %% tags=["hide-input"]
figures.copies_figure(
    recorded, {1: "copies=1@resnet", 8: "pii@resnet", 32: "copies=32@resnet"}, label="Figure 4.12",
    caption="The share of drawings that are named rightly against the number of copies in the ensemble.",
)

# %% [markdown]
# ### The penalty that need not be tuned
#
# The paper's argument for ColorShift is not only that drawings get better, but that the weight of total variation stops to matter. The
# released comparison changed the number of copies and the normalization together with ColorShift. Here only ColorShift changes:

# %% tags=["hide-input"]
figures.weights_figure(
    recorded, {"resnet": "trained under other colors", "resnet-plain": "trained on scenes as they are"}, label="Figure 4.13",
    caption="The share of drawings that are named rightly against the weight of total variation, with and without ColorShift, at equal "
    "copies. Left for a network trained under changed colors, right for one that has seen colors as they are.",
)

# %% [markdown]
# ### Against what came before
#
# Both regularized methods were tuned on the ResNet with equal numbers of trials, judged on drawings of their own, and then applied
# to another network as they were. Plug-In Inversion was not tuned.

# %% tags=["hide-input"]
figures.recognition_figure(
    recorded, {"resnet": "ResNet (tuned here)", "resnet-plain": "ResNet, plain", "vit": "ViT", "mixer": "MLP-Mixer"},
    methods=("tv+l2", "deep", "pii", "real"), label="Figure 4.14",
    caption="The share of drawings that are named rightly, where the penalties were tuned and elsewhere, beside Plug-In Inversion. "
    "DeepInversion needs BatchNorm.",
)

# %% [markdown]
# ### Robust networks

# %% tags=["hide-input"]
figures.twins_figure(
    recorded, {"pii@resnet": "ResNet", "pii@robust": "robust ResNet", "ce@resnet": "ResNet, cross-entropy alone",
               "ce@robust": "robust ResNet, cross-entropy alone", "real": "real scenes"}, label="Figure 4.15",
    caption="What each of the two verifiers names rightly, and how far the drawings are from real scenes in features (KID; 0 is as near as "
    "other real scenes).",
)

# %% [markdown]
# ## What the thesis claims, and what we measured
#
# Verdicts are computed as in [the first chapter](01_defenses.ipynb).

# %% tags=["hide-input"]
claims_table("inversion")

# %% tags=["nbval-check-output", "hide-input"]
for line in claims_table("inversion").verdict_lines():
    print(line)

# %% [markdown]
# ## Since the thesis
#
# **Only the phase.** MACO {cite:p}`fel2023maco` fixes the size of every frequency to what it is in natural images and optimizes the phase
# alone; a picture cannot then be made of high frequencies. It is `synthesis.Phases` here, and goes with every augmentation above.
#
# **Robust networks need less.** The gradient of an adversarially trained network is itself a drawing hand
# {cite:p}`santurkar2019,engstrom2019`: Figure 4.4 has one. It is the link between the two halves of this book.
#
# **Words instead of classes.** The same augmentations invert CLIP: the loss is then the distance of an image to a sentence
# {cite:p}`kazemi2024clip`, and the drawings show what the captions of the training data had in common, wanted or not. Chapter 6 is
# about that.
#
# ## Exercises
#
# **1. Why not more copies?** An ensemble of 32 costs four times as much as one of 8. What does averaging over copies do that a smaller
# rate over more steps would not?
#
# :::{admonition} Solution
# :class: dropdown
# Each step follows the mean gradient of its copies; its scatter falls with $1/\sqrt e$. Steps at a smaller rate average too, over
# time, but Adam divides by the size of the gradient it sees: noise that dominates a single copy's gradient is scaled up to full
# steps, and what is clipped at 0 or 1 on the way is lost.
# :::
#
# **2. A network that knows only gray.** What does ColorShift do for a network that was trained on gray images, given three equal channels?
#
# :::{admonition} Solution
# :class: dropdown
# The channels are shifted apart, so the network sees colored copies, which it has never seen. Its answers there are as arbitrary as
# to noise. Shift all channels alike instead.
# :::
#
# **3. The verifier's mistake.** Somebody measures $V$ with a verifier that has the same architecture and the same training images as the network
# that was inverted, from another seed. Why is that too kind, and which of this chapter's measures would show it?
#
# :::{admonition} Solution
# :class: dropdown
# Adversarial patterns transfer, best between networks that are alike, so noise can be named rightly. The share of energy in high
# frequencies and the distance in features to real images would still be those of noise; so would the adversarially
# trained verifier's answers.
# :::
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
