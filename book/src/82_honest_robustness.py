# %% [markdown]
# # How to evaluate my model's robustness honestly
#
# **You have a classifier that seems robust. You would like to know before somebody else tells you.**
#
# Many published defenses were broken by an attack that their authors had not tried {cite:p}`athalye2018`. The usual reason:
# their own attack followed gradients that led nowhere. This page shows the one call that looks for it, how to read what it says,
# and what to do then. The story behind it is [the chapter on regularization](03_regularization.ipynb).
#
# :::{admonition} What you need
# :class: tip
# - Your model as a `torch.nn.Module` from pixels in [0, 1] to logits; `tk.Classifier` puts normalization inside.
# - One or two hundred test images with labels, a `tk.data.Part` or a pair of tensors. Two hundred give intervals of about ± 7 points.
# - A radius $\varepsilon$, in units of pixels, at which the answer should not change.
#
# The notebook runs in about a minute on two CPU cores.
# :::

# %% [setup]

# %% [markdown]
# ## One call
#
# The model here reads digits and was trained with [logit squeezing on noisy images](zoo.md). The twin is another
# network for the same task, trained in the ordinary way: examples that fool it are tried on the model. (Without one at hand,
# `training.natural_twin(model, train_data)` makes it.)

# %%
from thesis_kit import evaluation
from thesis_kit.show.reports import attacks_table, masking_tables

model = tk.zoo.load("cnn-digits-squeezed", device=session.device)
twin = tk.zoo.load("cnn-digits-natural", device=session.device)
test = session.splits("defenses").test[:200]
report = evaluation.masking_report(model, test, eps=0.15, twin=twin)
masking_tables(report)

# %% [markdown]
# At the top stand the attacks, each tried on all images, with 95% intervals and what it cost. *PGD-10 × 5* is ten steps from five
# starts. All see the logits divided by their usual spread, which changes no answer, so that their size fools no attack. Then
# comes what was looked for, whether it was found, and the numbers behind it. Last stands the conclusion, with what a weak attack
# would have said on the logits as they are. `print(report)` adds one line: an attack on cross-entropy with the logits multiplied
# by a number. No answer of the network changes there, so whatever changes in that line is the attack's doing.
#
# The number to quote is the worst case. Quote it with $\varepsilon$, with the attacks and with the number of images.
#
# ## What the signs mean
#
# | sign | what it means | what to do |
# |---|---|---|
# | no gradients | a part of the model has slope zero, or is detached | attack a version without it; it is no defense |
# | unbounded attack fails | with $\varepsilon = 1$ any image can become any other, so 0% must be reached | the attack is broken, not the model good |
# | transfer wins | another network's gradients are better guides to this model than its own | its own are masked |
# | gradient-free search wins | the same, without another network | as above |
# | random points win | there are errors all around that the gradient misses | as above |
# | gradient leads nowhere | a random step does as much as a step along the gradient | look for noise or rounding in the model |
# | loss matters | cross-entropy hides what the margin shows | do not judge by cross-entropy |
# | more effort helps | weak attacks flatter; not masking by itself | report the strong one |
# | random answers | the model draws random numbers | nothing: it was judged by its mean answer |
# | constant answers | all images get the same logits | nothing to attack; look for a fault |
# | no better than chance | without any attack the answers are guesses | nothing to lose; train it first |
#
# The thresholds are ours; they stand with their reasons in `thesis_kit/evaluation/findings.py`.
#
# ## A model that hides
#
# Rounding pixels to nine levels looks like a defense: PGD finds next to nothing, for rounding has no slope.

# %%
import textwrap

import torch


class Rounded(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x * 8).round() / 8)


natural = tk.zoo.load("cnn-digits-natural", device=session.device)
hiding = Rounded(natural)
pgd20 = evaluation.reference_attack(0.15)
attacks_table(evaluation.robust_accuracy(hiding, test, pgd20))

# %%
report = evaluation.masking_report(hiding, test, eps=0.15, twin=natural)
print(textwrap.fill(report.conclusion, 78))

# %% tags=["nbval-check-output"]
print("masked:", report.masked)
found = [finding.name for finding in report.findings if finding.found]
print("found:", ", ".join(found))

# %% [markdown]
# The twin did it: for a model with a part that cannot be differentiated, the best twin is the model *without* that part.
#
# ## From the command line
#
# ```bash
# thesis-kit attack report cnn-digits-squeezed --data digits --eps 0.15 \
#     --twin cnn-digits-natural --out report.json
# ```
#
# takes a member of the [zoo](zoo.md) or any name that timm knows, and writes the same diagnosis as JSON. `--twin train` trains a twin first.
#
# ## What it cannot tell
#
# - *That a model is robust.* It says that these attacks did not break it. A better attack may, above all one made for this model.
# - *Anything outside the ball.* Light, angle and weather are other questions; [chapter 2](02_certificates.ipynb) has an example.
# - *What you tuned on it.* Choose settings on validation images, and run the report once on test images.
#
# ## References
#
# The list of signs follows {cite:t}`athalye2018` and {cite:t}`mosbach2018pairing`.
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
