# %% [markdown]
# # How to make a model robust with few images
#
# **You have a few images of each class, no time to train against attacks, and want a classifier that resists them.**
#
# Take a network that somebody trained to be robust on a related task, keep its features, and fit a new linear head to your
# clean images. No adversarial example is needed, and fitting takes seconds. The method is that of
# {cite:t}`shafahi2020transfer`; its claims stand in the ledger of [chapter 1](01_defenses.ipynb).
#
# :::{admonition} What you need
# :class: tip
# - A robust source network in the form of this book: any `torch.nn.Module` from pixels in [0, 1] to logits whose last layer
#   is linear. Here it comes from the [zoo](zoo.md); `tk.Classifier` wraps your own.
# - Your images as `tk.data.Part(x, y, ids)`: pixels in [0, 1], labels from 0. A few of each class to fit, some more to
#   judge.
#
# The notebook runs in about half a minute on two CPU cores.
# :::

# %% [setup]

# %% [markdown]
# ## Three steps
#
# The source below has learned eight shapes, and has been trained against attacks of radius 8/255. The target is eight
# *other* shapes. Of each we take 25 clean images.

# %%
from thesis_kit import evaluation, training
from thesis_kit.show.reports import attacks_table

source = tk.zoo.load("resnet-scenes-a-pgd7", device=session.device)
target = tk.data.load("scenes.v1-b", session.seed, size=32, n_train=2000, n_validation=200, n_test=400).to(session.device)
few = training.few(target.train, 25, seed=session.seed)
print(len(few), "images of", len(few.y.unique()), "classes")

# %% [markdown]
# The head has one knob, the penalty on its weights. Choose it on images that are neither fitted nor tested.

# %%
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
penalty = training.choose_penalty(source, few, target.validation, n_classes=8, penalties=PENALTIES)
model = training.linear_head(source, few, n_classes=8, penalty=penalty)

# %% [markdown]
# That is all. What it is worth is to be *measured*, on test images, by an attack and not by hope:

# %%
attack = evaluation.reference_attack(8 / 255)
attacks_table(evaluation.robust_accuracy(model, target.test, attack))

# %% [markdown]
# ## Is it the features?
#
# The control is a head made in the same way, its penalty chosen anew, on a network trained in the ordinary way. It may well be
# better on clean images; under attack it keeps next to nothing.

# %%
natural = tk.zoo.load("resnet-scenes-a-natural", device=session.device)
penalty = training.choose_penalty(natural, few, target.validation, n_classes=8, penalties=PENALTIES)
control = training.linear_head(natural, few, n_classes=8, penalty=penalty)
attacks_table(evaluation.robust_accuracy(control, target.test, attack))

# %% tags=["nbval-check-output"]
inherited, plain = (evaluation.robust_accuracy(m, target.test, attack).robust_accuracy for m in (model, control))
print("robust features keep at least 20 points more under attack:", inherited - plain > 0.20)

# %% [markdown]
# ## What to do with more images
#
# - **A few hundred a class:** fine-tune end to end and hold the features near the source's,
#   `training.distill(source, data, strength=1.0, n_classes=…, updates=…)`. It is meant to lift clean accuracy and keep
#   robustness; search for the strength on validation images, and measure both.
# - **Thousands a class, and time:** train against attacks from the transferred model,
#   `training.train(model, data, training.Free(eps, replays=8), updates=…)`. It costs no more passes than ordinary training.
#
# ## What can go wrong
#
# - *The source resists another kind of change.* Robustness is inherited for the norm and about the radius it was trained for.
# - *A normalization outside the model.* Attacks speak of pixels; put mean and standard deviation inside with `tk.Classifier`.
# - *Retraining deep blocks on clean images.* Robustness sits in the features that are then overwritten.
# - *Judging by one attack.* Before you rely on a number, take the strong ensemble:
#   `evaluation.strong_attacks(eps)` in place of `reference_attack(eps)`.
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
