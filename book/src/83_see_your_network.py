# %% [markdown]
# # How to see what your own network has learned
#
# **You have a classifier. You would like to see what it looks for in a class, a channel or a direction, and to know whether what you
# see is real.**
#
# Start from noise and change the pixels until the network is convinced. What helps a class to show through the noise is Plug-In Inversion
# {cite:p}`ghiasi2022pii`: the image grows from small to large, and every step looks at copies of it that were moved and recolored.
# One setting is meant for networks with and without convolutions. This page shows the call on a model of your own, how to doubt its
# answer, and how to ask something else. Why it works is the subject of [the chapter on inversion](04_inversion.ipynb).
#
# :::{admonition} What you need
# :class: tip
# - Your model as a `torch.nn.Module` from images to logits, with the mean and standard deviation it was trained with, for pixels in
#   [0, 1]: divide by 255 if yours are 125, 123, 113; a network trained on [−1, 1] has 0.5 and 0.5.
# - The side of the images it was trained on, 16 pixels or more.
# - To check what you see: one or two *other* networks with the same classes in the same order, and some real images.
#
# The notebook runs in about forty seconds on two CPU cores.
# :::

# %% [setup]

# %% [markdown]
# ## One call
#
# Your network here is a small Vision Transformer that names the shape in a scene. It expects normalized images of 64 × 64 pixels.
# `tk.Classifier` puts both inside, so that pixels in [0, 1] go in.

# %%
from thesis_kit import evaluation, inversion, synthesis
from thesis_kit.chapters.inversion import figures
from thesis_kit.show.tables import table

about = tk.zoo.entry("vit-scenes64")
network = tk.zoo.load("vit-scenes64").network  # a plain model of timm's, as you may have trained it
model = tk.Classifier(network, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], size=64).to(session.device)

CHOSEN = ["arrow", "star", "heart"]
wanted = [about.class_names.index(name) for name in CHOSEN]
BUDGET = {"steps": 20, "copies": 4, "lr": 0.2}

drawn = inversion.plug_in_inversion(model, wanted, size=64, **BUDGET)
print(drawn)

# %% [markdown]
# `drawn.images` holds an image a class, a tensor (n, 3, 64, 64) on the CPU with pixels in [0, 1]:
# `torchvision.utils.save_image(drawn.images, "drawn.png")` keeps them.

# %% tags=["hide-input"]
figures.picture_grid(
    {"your network": drawn.images}, CHOSEN, label="Figure 1", caption="Three classes as your network draws them.",
    alt=f"Three drawings: {', '.join(CHOSEN)}.",
)

# %% [markdown]
# `drawn.snapshots` has the images at the end of each of seven stages, with the number of steps made. A class that is listed twice gives
# two images. Your model is taken in evaluation mode and left as it was found.
#
# The budget is small, so that the page runs anywhere. Left out, it is 400 steps a stage and a rate of 0.01, as published, and 16 copies,
# which is our choice (the paper takes as many as fit into memory, 1 to 157). That is 44,800 passes an image, 80 times this page's: take a
# GPU for it. With fewer steps, make each longer: here, rate times steps is as published.
#
# `size` in the call is always the side that the network was trained on. In `Classifier` it is for networks that take no other size.
#
# | your model | what to write |
# |---|---|
# | a convolutional network with global pooling | `tk.Classifier(network, mean=[…], std=[…])`; the first stage shows it images of a quarter of the side |
# | a ViT; one that flattens its maps or pools in fixed windows | the same with `size=…`, which enlarges the images of early stages |
# | for gray images | `mean` and `std` with one number each, and `plug_in_inversion(…, channels=1)` |
# | known to timm | `tk.build("resnet50.a1_in1k", pretrained=True)` has all of this inside |
# | normalizes by itself | `tk.Classifier(network)`, or the model as it is |
# | ends in a softmax | take it off: behind it the loss can hardly fall, and nothing says so; a log-softmax may stay |
# | returns a dict or an object | wrap it, so that `forward` returns the logits |
# | segments, or has one output | ask for a channel of its last layer (below) |
#
# ## Is it real?
#
# That your network likes its own drawing says nothing. It was changed until it did, and noise can be liked too. Doubt it in three ways.
#
# **Ask others.** *Verifiers* are networks that took no part. It is best if they have another architecture and another seed, and if one
# was trained adversarially. $V$ is the share of drawings that they name rightly. For ImageNet, `tk.build(name, pretrained=True)` is one;
# for classes of your own, train two: `tk.train(other, data, updates=…)` and the same with `tk.training.PGD(eps)`.
#
# **Look at the frequencies.** In noise, much of the energy is in high frequencies. Compare the drawings with real images of the
# same size that were not enlarged.
#
# **Ask a network that has learned nothing.** The same architecture with fresh weights, and the same call. What its drawings show comes
# from the method and not from training.

# %%
import torch

untrained = tk.build(about.architecture, n_classes=about.n_classes, seed=1, **about.options).to(session.device)
control = inversion.plug_in_inversion(untrained, wanted, size=64, **BUDGET)

# %% [markdown]
# Of your own: `tk.Classifier(MyNetwork(), mean=[…], std=[…], size=…)`, without loading weights. Now all of it side by side. Real
# images are any float tensor (n, 3, 64, 64) in [0, 1], labels int64 numbers:

# %%
test = tk.data.load("scenes.v1", session.seed, size=64, n_train=1, n_validation=1, n_test=500).test.to(session.device)
verifiers = [tk.zoo.load(name, device=session.device) for name in ("verifier-scenes64", "verifier-scenes64-pgd")]
y = torch.tensor(wanted, device=session.device)
shown = {
    "your network": drawn.images.to(session.device),
    "random weights": control.images.to(session.device),
    "real scenes": torch.cat([test.x[test.y == label][:1] for label in wanted]),
}
rows = []
for name, images in shown.items():
    share = evaluation.recognized(verifiers, images, y).mean().item()
    fine = evaluation.high_frequency_share(images).mean().item()
    rows.append((name, f"{share:.0%}", f"{fine:.0%}"))
table(rows, ("images", "V", "high frequencies"))

# %% tags=["hide-input"]
figures.picture_grid(
    shown, CHOSEN, label="Figure 2",
    caption="Three classes as your network draws them, as the same network draws them with random weights, and as they "
    "are in scenes.",
    alt=f"Three rows, {', '.join(shown)}, and a column for each of {', '.join(CHOSEN)}.",
)

# %% tags=["nbval-check-output"]
yours, controls = (evaluation.recognized(verifiers, shown[name], y).sum() for name in ("your network", "random weights"))
print("verifiers name more drawings of the network than of the control:", bool(yours > controls))

# %% [markdown]
# Read the rows together. If verifiers name the network's drawings and not the control's, something was learned that others have learned
# too. Frequencies have no threshold: the drawings are much rougher than scenes and less rough than the control's, so beside what was
# learned there is much noise. Drawings that please the network alone are [adversarial examples](01_defenses.ipynb) that started from
# noise.
#
# Three images are an illustration. For a number, make several of every class (`classes=[0, 0, 0, 1, 1, 1]`). There are two more measures:
# `evaluation.class_regions` counts in how many separate places of the image a verifier sees the class, which wants a look at real images
# too; and `evaluation.kid_of_images` is the distance to real images in the features of a verifier of timm's or of ours.
#
# ## Other questions
#
# A class is one thing to ask for. `synthesis.synthesize` takes any *objective*: a number that is read from layers of the network and
# made small. Put a minus before what you want large. Layers have the names of `named_modules()`:

# %%
print(*[name for name, _ in network.named_modules() if name.startswith("blocks.4")], sep=", ")

# %% [markdown]
# `"input of blocks.4"` is what goes into one.
#
# - `channel` is the mean of a channel over all positions, `neuron` a channel at one position, the middle of the image unless you
#   say another. In a convolutional network a position is (row, column), of a map that grows with the image. In a ViT it is the
#   number of a token: here 0 is the class token, and then come the patches, row by row.
# - Some networks keep channels last: all blocks of a Swin, the `mlp` inside a ConvNeXt. Where a layer gives (n, h, w, channels), say
#   `channels_last=True`. Without it a row of the image is taken for a channel, and nothing can tell you.
# - `direction` is any vector in the space of a layer. Below it is what sets the features of your arrows apart from those of
#   your crosses. `synthesis.activations` shows images to a model and returns what a layer gives; any two groups of images will do.
# - `logit` is a class without the others. `layer` is all that a layer gives; with `start=`, images of the first stage's size to begin
#   with, it makes a DeepDream.
# - Objectives add and scale: two classes in one image, with a little total variation against roughness.

# %%
arrow, cross, heart = (about.class_names.index(name) for name in ("arrow", "cross", "heart"))
features = synthesis.activations(model, "input of head", test.x)["input of head"]
apart = features[test.y == arrow].mean(dim=0) - features[test.y == cross].mean(dim=0)

questions = {
    "channel of blocks.1": -synthesis.channel("blocks.1.mlp.act", [40]),
    "channel of blocks.4": -synthesis.channel("blocks.4.mlp.act", [40]),
    "neuron of blocks.4": -synthesis.neuron("blocks.4.mlp.act", [40]),
    "arrows, not crosses": -synthesis.direction("input of head", apart[None]),  # a row for each image that is asked for
    "arrow and heart": synthesis.cross_entropy([arrow])
    + synthesis.cross_entropy([heart])
    + 0.005 * synthesis.total_variation(),
}
SEEN = [synthesis.Jitter.for_size(64), synthesis.Ensemble(BUDGET["copies"]), synthesis.ColorShift()]
answers = {
    asked: synthesis.synthesize(
        model, objective, stages=inversion.growing(64, BUDGET["steps"]), augmentations=SEEN,
        optimizer=synthesis.Adam(lr=BUDGET["lr"]),
    )
    for asked, objective in questions.items()
}

# %% tags=["hide-input"]
figures.picture_grid(
    {"your network": [answer.images[0] for answer in answers.values()]}, list(answers), label="Figure 3",
    caption="Five questions to your network: a channel of an early and of a late block, the same channel of the late "
    "block at one patch alone, a direction between two groups of images, and two classes at once.",
    alt=f"Five drawings, one for each of: {'; '.join(answers)}.",
)

# %% [markdown]
# A forward pass ends at the deepest layer that the objective reads, so a question about an early block is cheap:

# %%
print({asked: f"{answer.seconds:.1f} s" for asked, answer in answers.items()})

# %% [markdown]
# These are the stages and augmentations of Plug-In Inversion, written out; leave out or change what you like. Lists make many images in
# one call: `channel(layer, range(384))` gives one for each channel. An image shows what excites a channel most, which need not be
# what the channel is for. Make more than one, `channel(layer, [40, 40, 40])`, and keep the control: ask the untrained network too.
#
# ## Other ways to store an image
#
# So far the pixels themselves were changed. Two other *parametrizations* make some images easier to reach than others.
# `Fourier` changes the image's frequencies, low ones more easily, and colors along axes that vary independently
# {cite:p}`olah2017`. `Phases` gives every frequency the strength it has in your images, and changes only where things are
# {cite:p}`fel2023maco`. On a network of ImageNet, drawings by `Fourier` were read twice as often as drawings in pixels
# ([chapter 4](04_inversion.ipynb)). The strengths are measured:

# %%
spectrum = synthesis.mean_spectrum(test.x)
ways = {
    "pixels": (synthesis.Pixels(), 0.05),
    "Fourier": (synthesis.Fourier(), 0.05),
    "phases": (synthesis.Phases(spectrum), 0.1),
}
stored = {
    called: synthesis.synthesize(
        model, synthesis.cross_entropy([arrow]), stages=synthesis.Stage(64, 100), parametrization=way,
        augmentations=SEEN, optimizer=synthesis.Adam(lr=rate),
    ).images[0]
    for called, (way, rate) in ways.items()
}
for called, image in stored.items():
    fine = evaluation.high_frequency_share(image[None]).item()
    print(f"{called:8} energy in high frequencies {fine:4.0%}")

# %% tags=["hide-input"]
figures.picture_grid(
    {"arrow": [*stored.values(), shown["real scenes"][0]]}, [*stored, "a real one"], label="Figure 4",
    caption="One class by three parametrizations, at full size from the first step, and a scene with the same class.",
    alt=f"Four images of an arrow: {', '.join(stored)}, and a real scene.",
)

# %% [markdown]
# - The rate is in units of what is stored: pixels, entries of a spectrum, radians. Each parametrization needs its own.
# - All three go with stages that grow (`stages=inversion.growing(size, steps)`); here there is one stage, so that only the
#   parametrization differs.
# - `Fourier` and `Phases` need an even width in every stage, which sides that 16 divides have (32, 64, 224). For others, such as 28 or
#   299, take one stage of even size. `Phases` needs as many channels as the images that were measured; another size is resampled.
# - `Phases` can hardly leave the spectrum of your images. A share of high frequencies like theirs is then no sign that a drawing
#   is real: ask the verifiers.
#
# ## When it goes wrong
#
# Messages say what was seen and what to do. Four mistakes that are easily made:

# %% tags=["nbval-check-output"]
import textwrap

unsized = tk.Classifier(network, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]).to(session.device)
once = synthesis.Stage(64, steps=1)
mistakes = {
    "no such class": lambda: inversion.plug_in_inversion(model, [16], size=64),
    "wrong size": lambda: inversion.plug_in_inversion(unsized, wanted, size=64),
    "wrong channels": lambda: inversion.plug_in_inversion(model, wanted, size=64, channels=1),
    "no such layer": lambda: synthesis.synthesize(model, synthesis.channel("block.4", [0]), stages=once),
}
for mistake, call in mistakes.items():
    try:
        call()
    except ValueError as error:
        print(textwrap.fill(f"{mistake}: {error}", 100, subsequent_indent="    "))

# %% [markdown]
# The second comes from a ViT without `size` in its `Classifier`: it meets the first stage's small image.
#
# A gradient of zero at the first step is no error, for a moved copy may have one in a later step. But often nothing comes of it, and the
# image stays as it was. So you are warned:

# %% tags=["nbval-check-output"]
import warnings

resnet = tk.zoo.load("resnet-scenes64", device=session.device)
for layer in ("layer3.0.act1", "input of layer3.0.act1"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        synthesis.synthesize(resnet, -synthesis.neuron(layer, range(8)), stages=once)
    said = [textwrap.fill(str(warning.message), 100) for warning in caught]
    print(f"{layer}:", *(said or ["no warning"]), sep="\n")

# %% [markdown]
# Eight neurons were asked for. Behind their ReLU, those that the warning names are off at the start; what goes *into* the ReLU has a
# gradient everywhere.

# %% [markdown]
# What no message can say:
#
# | what you see | what to try |
# |---|---|
# | noise, and the loss is high | more steps, or longer ones: in a stage a pixel travels at most about half of rate times steps |
# | noise, and the loss is low | more copies; are jitter and ColorShift in use, and does the image grow? |
# | the class many times over | with `synthesize`, stages that grow and centering; together they gave one region more often on scenes. Count with `class_regions` |
# | the right shape in odd colors | ColorShift makes colors arbitrary on purpose; a smaller `color` holds them nearer |
# | the same from random weights | it comes from the method: nothing was learned that can be seen here |
#
# ## Bigger
#
# **A GPU.** Move the model there, `model.to("cuda")`; images follow. `drawn.peak_bytes` is the memory that was needed.
#
# **Precision.** `precision="float16"` or `"bfloat16"` makes the network's passes in half precision; images and optimizer stay
# in float32. If the loss becomes NaN you are told so: take `"bfloat16"` or `"float32"`.
#
# **Batch.** `batch` is the number of images in a pass, copies counted: 64 on a CPU and 256 on a GPU unless given. It decides memory and
# speed. It does not decide the result, but for rounding, since each image draws its own random numbers. An image's copies stay
# together: where one image alone is too much, take fewer `copies`.
#
# **Cost.** An image takes 7 × `steps` × `copies` passes forward and backward of your network. Time one class first; `print(drawn)` says
# how long it took.
#
# **Stop and go on.** With a `checkpoint`, the state is written every half minute; the same call goes on where it was.
# It refuses a file that belongs to other weights, settings or another batch. The file has all stages of all images that are done: for
# many classes take one call and one file for each hundred or so, as below.
#
# ```python
# drawn = inversion.plug_in_inversion(
#     model.to("cuda"), range(100), size=224, precision="bfloat16", batch=128, checkpoint="first.pt"
# )
# ```
#
# **Share the work.** Random numbers belong to `seed` and to an image's number in `ids`, so parts of the work come out as all of it would:
# `plug_in_inversion(model, range(100, 200), …, ids=range(100, 200), checkpoint="second.pt")`, here or on another machine.
#
# ### From the command line
#
# ```bash
# thesis-kit invert --model vit-scenes64 --classes arrow,heart --each 2 --sheet shapes.png
# thesis-kit invert --model vit_base_patch16_224 --pretrained --classes 207,281 --precision bfloat16 --resume pets.pt --sheet pets.png
# ```
#
# takes a member of the [zoo](zoo.md), whose classes have names, or any name that timm knows, uses the GPU where there is one, and writes a
# contact sheet. For weights of your own give `--weights mine.safetensors --arch resnet18` in place of `--model`. The images of a class
# stand side by side. Next to `shapes.png` lies `shapes.json`:
#
# | key | what it holds |
# |---|---|
# | `model`, `weights`, `version` | what was inverted, a hash of its weights, and the version of the package |
# | `settings` | the options of the command, as they were used |
# | `images` | for each its `class`, `name`, last `loss`, the `probability` of its class, and the model's `answer`, a number |
# | `passes`, `seconds`, `peak_bytes` | what it cost |
#
# Without `--pretrained` a model of timm's has random weights, and the command says so: that is the control.
#
# ## Where to go on
#
# - [The chapter on inversion](04_inversion.ipynb) takes the method apart, and counts on hundreds of drawings what each part does.
# - [How to evaluate my model's robustness honestly](82_honest_robustness.ipynb): the same doubt, for another claim.
# - [The zoo](zoo.md) has networks to try, some in pairs that differ in one thing.
# - [The package](api/synthesis.md) lists all objectives, augmentations and parametrizations.
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
