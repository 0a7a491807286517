# %% [markdown]
# # Regularization
#
# **The question of this chapter: is there robustness without adversarial examples, or only the look of it?**
#
# [Adversarial training](01_defenses.ipynb) attacks the network while it learns. Perhaps that is a detour. If one knew *what* it
# does to a network, one could ask for that directly, by a penalty in the loss, and save the attacks. The thesis
# {cite:p}`ghiasi2022thesis` finds two candidates that are almost embarrassingly simple: tell the network to be less sure, by
# *label smoothing*, or keep its logits small, by *logit squeezing*; and train on noisy images {cite:p}`shafahi2019smoothing`.
#
# The measured robustness was striking. Later work found that much of it was in the measuring {cite:p}`mosbach2018pairing`. This
# chapter does both: the method as it was meant, and the judgment as one would pass it today. It ends with a tool that does
# the judging for any network.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - the argument: what a margin, its slope and their ratio have to do with robustness;
# - two penalties, each a line of code;
# - a slider over the strength of the attack, along which a ranking changes;
# - what the loss looks like around an image, for networks that are robust and for one that seems so;
# - why multiplying all logits by a number fools an attack, and which attack it does not fool;
# - a diagnosis of any network in one call.
#
# Reading takes about 30 minutes; running the notebook takes about a minute on two CPU cores. It helps to have read
# [the first chapter](01_defenses.ipynb).
# :::

# %% [setup]

# %% tags=["hide-input"]
from IPython.display import Markdown

from thesis_kit import evaluation, training
from thesis_kit.experiments.sources import regularized_network
from thesis_kit.reporting import regularization as figures
from thesis_kit.reporting import results
from thesis_kit.reporting.ledger import claims_table

P = session.chapter("regularization")
splits = session.splits("regularization")
SHOWN = {"natural": "ordinary training", "lsq+noise": "squeezing + noise", "pgd-7": "PGD-7 training"}
networks = {arm: regularized_network(session, arm) for arm in SHOWN}

# %% [markdown]
# ## A margin and its slope
#
# Let $z_y(x)$ be the logit of the right class and $z_c(x)$ that of another. The answer is right as long as the *logit gap*
# $z_y - z_c$ is positive. How far is it to zero? Follow the tangent. If every pixel may change by $\varepsilon$, the gap changes at
# most by $\varepsilon$ times the sum of the absolute slopes, so to first order the answer is safe if
#
# ```{math}
# :label: eq-ratio
# \varepsilon \;<\; \min_{c \neq y}\; \frac{z_y(x) - z_c(x)}{\lVert \nabla_x z_y(x) - \nabla_x z_c(x) \rVert_1} .
# ```
#
# The denominator is called the *gradient gap*. For a linear classifier {eq}`eq-ratio` is the exact distance. For a network it is what
# the tangent says, and tangents are right for a while only.
#
# So there are two ways to be robust: a larger logit gap, or a smaller gradient gap. Measure both, on networks that are robust and that
# are not:

# %%
test = splits.test
for arm, network in networks.items():
    found = evaluation.first_order(network, test.x, test.y)
    print(f"{SHOWN[arm]:18} logit gap {found.logit_gap.median():5.1f}   gradient gap {found.gradient_gap.median():6.1f}   "
          f"ratio {found.margin.median():.3f}")

# %% [markdown]
# (Medians over the test images.) Adversarial training shrinks the gradient gap; the logits are not what it cares about. The thesis's
# thought is to get the same ratio in another way.
#
# :::{admonition} The idea
# :class: important
# Squeeze the logits. A network that must keep its logits small and its training loss low has to spend its logits carefully; with noisy
# images, it cannot afford steep slopes. The gap shrinks, the slope shrinks more, and the ratio grows. No attack is needed.
# :::
#
# **Logit squeezing** adds the size of the minibatch's matrix of logits $Z$ to the cross-entropy $L$, and trains on noisy images:
#
# ```{math}
# :label: eq-squeeze
# \min_\theta \; \sum_k L\big(Z(X_k + \eta),\, Y_k\big) + \beta\, \lVert Z(X_k + \eta) \rVert_F ,
# \qquad \eta \sim N(0, \sigma^2 I) .
# ```
#
# (Others take the mean length of an image's logits instead {cite:p}`kannan2018pairing`. With $n$ images of equal length the two differ
# by $\sqrt n$, so a $\beta$ has to be quoted with its formula.)
#
# **Label smoothing** {cite:p}`szegedy2016` asks for less than certainty: instead of the one-hot label $y_{\text{hot}}$ it trains on
# $y_{\text{hot}} - \alpha\,(y_{\text{hot}} - \tfrac1K)$ with $K$ classes. Write out the cross-entropy and it comes apart:
#
# ```{math}
# :label: eq-smooth
# L_{\text{smooth}} = L + \alpha\, \Big( z_y - \frac1K \sum_c z_c \Big) .
# ```
#
# The second term *is* a logit gap. Smoothing is a squeeze of one direction.
#
# With your own network and data both are one more argument of training. A term of the loss is any function
# `(model, x, y, logits) -> scalar`, and terms go with every method of the first chapter:

# %%
model = session.classifier("regularization")
report = training.train(
    model, splits.train, training.Gaussian(P.sigma), terms=[training.LogitSqueezing(P.beta)], updates=P.updates,
    batch_size=P.batch_size, lr=P.lr,
)
print(f"{report.passes.backward / report.updates:g} backward pass an update")
print(evaluation.robust_accuracy(model, test, evaluation.weak_attack(P.eps)))

# %% [markdown]
# Without one adversarial example, and by an attack of the kind that was usual in 2018: PGD on the cross-entropy, ten small
# steps, one start. Compare ordinary training under the same attack:

# %%
print(evaluation.robust_accuracy(networks["natural"], test, evaluation.weak_attack(P.eps)))

# %% [markdown]
# ## The same networks under better attacks
#
# If you stop here you believe it. So go on. What follows runs many attacks on three networks, and marks what the weak attack says
# and what is left when all have tried.

# %%
some = test[:120]
reports = {
    SHOWN[arm]: evaluation.masking_report(network, some, eps=P.eps, queries=500, restarts=3)
    for arm, network in networks.items()
}

# %% tags=["hide-input"]
figures.attacks_figure(
    reports, label="Figure 3.1",
    caption=f"Every attack of a diagnosis, live, on {len(some)} test images (ε = {P.eps:.3g}). The triangle is what a weak attack of "
    "the usual kind reports, the diamond what remains in the worst case. The longer the bar between, the more the first number flattered.",
)

# %% [markdown]
# The diagnosis of the squeezed network in full:

# %%
print(reports["squeezing + noise"])

# %% [markdown]
# ## What the surface looks like
#
# An attack walks on the surface of the loss. Here it is around four images, on a plane: upwards along the sign of the gradient, sideways
# along a random direction. What is drawn is the margin; black is the border where the answer changes.

# %% tags=["hide-input"]
shown = test[:4]
figures.surfaces_figure(
    {
        SHOWN[arm]: evaluation.loss_surface(network, shown.x, shown.y, eps=2 * P.eps, generator=session.generator())
        for arm, network in networks.items()
    },
    images=len(shown), eps=P.eps, label="Figure 3.2",
    caption="The margin around four test images, in a square of ± 2ε: blue is answered rightly, red wrongly, the black line is the border "
    "and the dot the image. Up is the direction of the gradient at the dot, sideways a random one. Each picture has a color scale "
    "of its own.",
)

# %% [markdown]
# Ordinary training has the border close by, straight up. The robust network has it farther away and straight: the gradient at the image
# is right all the way. If the lines bend, the gradient at the image is right only for a while, and the tangent of {eq}`eq-ratio`
# promises more than there is.
#
# ## What ten seeds say
#
# From here on the numbers are recorded: ten seeds, every image tested twice. All that is compared got equal numbers of
# trials, chosen under the *weak* attack on validation images, as a believer in the method would choose. Only then came the test
# images and the stronger attacks.

# %% tags=["hide-input"]
recorded = results.load_result("regularization.digits")
Markdown(f"*{recorded.provenance()}.*")

# %% tags=["hide-input"]
figures.sweep_figure(
    recorded, {"ls+noise": ("alpha", "smoothing α"), "lsq+noise": ("beta", "squeezing β")}, label="Figure 3.3",
    caption="The trials, recorded: accuracy of validation images under the weak attack (%), mean over ten seeds, for every strength of "
    "the regularizer and of the noise.",
)

# %% [markdown]
# Now let the attack grow. Move the slider: each position adds an attack, and an image counts only if it has survived all
# up to there.

# %% tags=["hide-input"]
RUNGS = {
    "N": "No attack",
    "one step": "One step of size ε (FGSM)",
    "weak": "PGD, 10 small steps",
    "R": "PGD, 20 steps",
    "long": "PGD, 100 steps",
    "restarts": "PGD, 100 steps, best of five starts",
    "worst": "The strong ensemble: three losses, restarts, and a search without gradients",
}
figures.strength_slider(
    recorded, RUNGS, ["natural", "noise", "ls", "lsq", "ls+noise", "lsq+noise", "similarity+noise", "pairing+noise", "pgd-7"],
    start=2, label="Figure 3.4",
    caption="How many test images survive as the attack grows, recorded: mean over ten seeds with 95% intervals, the best on top.",
)

# %% [markdown]
# ### Tangents
#
# Equation {eq}`eq-ratio` said how far the border is by the tangent. An attack can say how far it really is, or at least no
# farther: try growing radii until PGD on the margin succeeds.

# %% tags=["hide-input"]
figures.tangent_figure(
    recorded, ["natural", "lsq+noise", "pgd-7"], eps=P.eps, label="Figure 3.5",
    caption="Distance to the border, a dot for each test image of one seed: by the tangent (across) and found by an attack (up). On the line "
    "the tangent is right; below it, it promised too much. The dotted line is the ε of this chapter.",
)

# %% tags=["hide-input"]
print(figures.gap_lines(recorded, ["natural", "noise", "ls+noise", "lsq+noise", "pgd-7"]))

# %% [markdown]
# ### Scale
#
# Divide all logits by a number $T$. No answer changes, at any image; the tangent's ratio {eq}`eq-ratio` does not change either. What
# changes is the cross-entropy. For small $T$ the network becomes so sure that the loss is zero to the last digit, and so is its gradient.
# An attack that follows it stands still.

# %% tags=["hide-input"]
figures.scales_figure(
    recorded, ["natural", "lsq+noise", "pgd-7"], label="Figure 3.6",
    caption="Accuracy under PGD-20 with the logits divided by T, recorded, mean over ten seeds. The networks' answers are the same all along. "
    "Lines: the attack follows the cross-entropy. Dotted: it follows DLR, a ratio of logits.",
)

# %% [markdown]
# So a method that changes the size of the logits changes what an attack on the cross-entropy can see, whether or not it changes
# the robustness. Squeezing and smoothing are such methods by construction. That is reason enough to judge them by a loss without scale.
#
# ## What the thesis claims, and what we measured
#
# Verdicts are computed as in [the first chapter](01_defenses.ipynb).

# %% tags=["hide-input"]
claims_table("regularization")

# %% tags=["nbval-check-output", "hide-input"]
for line in claims_table("regularization").verdict_lines():
    print(line)

# %% [markdown]
# ## Since the thesis
#
# **Logit squeezing was broken soon.** {cite:t}`mosbach2018pairing` attacked it with more steps and more restarts. On MNIST (ε = 0.3) a squeezed
# network fell from 70.6% under the baseline attack to 5.0%, on CIFAR-10 (ε = 16/255) from 27.0% to 1.7%; adversarial training from 95.2% to
# 88.0% and from 16.0% to 6.7%. Clean logit pairing {cite:p}`kannan2018pairing` fared no better.
#
# **Label smoothing too.** {cite:t}`fu2020smoothing` find robustness of up to 75% under PGD on CIFAR-10, volatile, and gone when
# examples are transferred from an ordinary network. The likely mechanism has a name: *imbalanced gradients*, where one part of the
# margin hides the other {cite:p}`ma2020imbalanced`.
#
# **The test became a standard.** The checklist of {cite:t}`athalye2018` says how masked gradients show; AutoAttack
# {cite:p}`croce2020autoattack` made a strong ensemble without knobs, and RobustBench {cite:p}`croce2021robustbench` a table by it. No
# network trained by smoothing or squeezing alone is in it. A neighboring method of regularization went from 71.22% as reported to
# 1.35%.
#
# ## Exercises
#
# **1. How steep may it be?** A network has a logit gap of 2 and a gradient gap of 40 at some image. Somebody multiplies its last layer by
# ten. What are the gap, the gradient gap and the tangent's distance now?
#
# :::{admonition} Solution
# :class: dropdown
# 20, 400, and 0.05 as before. That is why the *size* of either says nothing by itself.
# :::
#
# **2. Smoothing without end.** What does label smoothing with $\alpha = 1$ ask for, and what does the network answer?
#
# :::{admonition} Solution
# :class: dropdown
# All labels are uniform, so the best logits are all equal and the network learns nothing. By {eq}`eq-smooth`: cross-entropy pulls the
# gap up with a force that never exceeds one, smoothing pulls it down with a force of $\alpha$.
# :::
#
# **3. A mask of your own.** Put a layer in front of the network that rounds every pixel to eight levels, and run the diagnosis on it. What
# does it say, and which attack is still to be trusted?
#
# :::{admonition} Solution
# :class: dropdown
# `x -> (x * 8).round() / 8` has no slope anywhere, so there is no gradient. The diagnosis says so; what counts then is the search without
# gradients and examples made on another network. The honest attack removes the rounding first and judges with it.
# :::
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
