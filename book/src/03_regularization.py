# %% [markdown]
# # Regularization
#
# **The question of this chapter: is there robustness without adversarial examples, or only the look of it?**
#
# [Adversarial training](01_defenses.ipynb) attacks the network while it learns. Perhaps that is a detour. If one knew *what* it
# does to a network, one could ask for that directly, by a penalty in the loss, and save the attacks. The thesis
# {cite:p}`ghiasi2022thesis` finds two candidates that are almost embarrassingly simple: tell the network to be less sure, by
# *label smoothing*, or keep its logits small, by *logit squeezing*; and train on noisy images {cite:p}`shafahi2019smoothing`.

# %% [setup]

# %% tags=["hide-input"]
from thesis_kit.show import diagrams

diagrams.squeezing("Figure 3.1")

# %% [markdown]
# The measured robustness was striking. Later work found that much of it was in the measuring {cite:p}`mosbach2018pairing`. This
# chapter does both: the method as it was meant, and the judgment as one would pass it today. The answer it comes to, in its small
# worlds: a good part of what a penalty seems to give is look, noise is real and does much of the work, and attacking while learning
# does more than both.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - the argument: what a margin, its slope and their ratio have to do with robustness;
# - two penalties, each a line of code, and the controls that they were owed;
# - what is left of every gain when the attack gets better;
# - what the margin looks like around an image, and why such a picture proves nothing;
# - why the tangent promises far more after squeezing than an attack finds;
# - why multiplying all logits by a number fools an attack, and which attack it does not fool.
#
# Reading takes about 30 minutes; running the notebook takes about a minute on two CPU cores. It helps to have read
# [the first chapter](01_defenses.ipynb).
# :::

# %% tags=["hide-input"]
from IPython.display import Markdown

from thesis_kit import evaluation, training
from thesis_kit.chapters.regularization.networks import regularized_network
from thesis_kit.chapters.regularization import figures
from thesis_kit.ledger import results
from thesis_kit.show.reports import differences, masking_tables
from thesis_kit.show.tables import table
from thesis_kit.show.verdicts import claims_table

P = session.chapter("regularization")
splits = session.splits("regularization")
test = splits.test

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
# So there are two ways to be robust: a larger logit gap, or a smaller gradient gap. Measure both, on a network of ordinary training
# and on one that was trained against attacks of seven steps (both from [the zoo](zoo.md)):

# %%
networks = {
    "ordinary training": regularized_network(session, "natural"),
    "PGD-7 training": regularized_network(session, "pgd-7"),
}
medians = {}
for name, network in networks.items():
    found = evaluation.first_order(network, test.x, test.y)
    gaps = f"{found.logit_gap.median():.1f}", f"{found.gradient_gap.median():.1f}"
    medians[name] = *gaps, f"{found.margin.median():.3f}"
table(medians, ("network", "logit gap", "gradient gap", "ratio"), caption="medians over test images")

# %% [markdown]
# Adversarial training makes the slope about half as steep and leaves the logits large. The thesis's thought is to get a better ratio
# in another way.
#
# :::{admonition} The idea
# :class: important
# Squeeze the logits. A network that must keep its logits small and its training loss low has to spend its logits carefully; with noisy
# images, it cannot afford steep slopes. The gap shrinks, the slope shrinks more, and the ratio grows. No attack is needed.
# :::
#
# **Logit squeezing** adds the size of the minibatch's matrix of logits $Z$ to the cross-entropy $L$, and trains on noisy images. $X_k$ and $Y_k$ are
# minibatch $k$ and its labels, and $\lVert \cdot \rVert_F$ is the root of the sum of squares:
#
# ```{math}
# :label: eq-squeeze
# \begin{aligned}
# \min_\theta \;\; & \sum_k L\big(Z(X_k + \eta),\, Y_k\big) + \beta\, \lVert Z(X_k + \eta) \rVert_F , \\
# & \eta \sim N(0, \sigma^2 I) .
# \end{aligned}
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
# With your own network and data either is one more argument of training. A term of the loss is any function
# `(model, x, y, logits) -> scalar`, and terms go with every method of the first chapter:

# %%
squeezed = session.classifier("regularization")
report = training.train(
    squeezed,
    splits.train,
    training.Gaussian(P.sigma),
    terms=[training.LogitSqueezing(P.beta)],
    updates=P.updates,
    batch_size=P.batch_size,
    lr=P.lr,
)
print(f"{report.passes.backward / report.updates:g} backward pass an update")

# %% [markdown]
# Not one adversarial example was made. Is it robust? First by an attack of the kind that was usual in 2018: PGD on the
# cross-entropy, ten small steps, one start.

# %%
weak = evaluation.weak_attack(P.eps)
networks["squeezing + noise"] = squeezed.eval()
table({name: f"{evaluation.robust_accuracy(networks[name], test, weak).robust_accuracy:.1%}"
       for name in ("ordinary training", "squeezing + noise")}, caption="right under the weak attack")

# %% [markdown]
# If you stop here you believe it. But two things were changed at once, the penalty and the noise, and each is owed a control: a
# network trained with that alone.

# %%
networks["squeezing"] = regularized_network(session, "lsq")
networks["noise"] = regularized_network(session, "noise")
table({name: f"{evaluation.robust_accuracy(networks[name], test, weak).robust_accuracy:.1%}"
       for name in ("squeezing", "noise")}, caption="right under the weak attack")

# %% [markdown]
# The noise alone comes within several points of both together. And squeezing alone? It looks better than ordinary training by
# far. Remember that number.
#
# ## The same networks under better attacks
#
# What follows runs many attacks on all five networks, marks what the weak one says, and what is left when all have tried.

# %%
some = test[:120]
twin = networks["ordinary training"]
order = "ordinary training", "squeezing", "noise", "squeezing + noise", "PGD-7 training"
reports = {}
for name in order:
    reports[name] = evaluation.masking_report(
        networks[name], some, eps=P.eps, twin=twin, queries=500, restarts=3
    )

# %% tags=["hide-input"]
figures.attacks_figure(
    reports, label="Figure 3.2",
    caption=f"Every attack of a diagnosis, live, on {len(some)} test images (ε = {P.eps:.3g}). The triangle is what a weak attack of "
    "the usual kind reports, the diamond what remains in the worst case. The longer the bar between, the more the first number flattered.",
)

# %% [markdown]
# In this network the robustness of squeezing alone was in the attack: in the worst case it has no lead over ordinary training.
# (Over ten seeds, below, about half of its lead is left.) The others keep most of theirs, and the order is: noise, with or
# without squeezing, far above ordinary training; adversarial training far above noise.
#
# Here is the diagnosis of squeezing alone in full. A gradient is *masked* if it leads an attack nowhere although wrong answers are
# near. *PGD-10 × 3* is ten steps from three starts. *DLR* is a ratio of differences
# of logits, as in [the first chapter](01_defenses.ipynb); *transfer* tries examples made on the network of ordinary training;
# *random points* searches the ball blindly.

# %%
masking_tables(reports["squeezing"])

# %% [markdown]
# Look at how long the list of attacks had to be. PGD with a hundred steps still leaves several times as many images as the worst
# case; more starts help, the margin as a loss helps and DLR does not, and a search that asks for no gradient at all does better
# than most that follow one. How to run this on a network of your own, and how to read it, is on
# [a page of its own](82_honest_robustness.ipynb).
#
# ## What the surface looks like
#
# An attack walks on a surface. Here is the margin around four images, on a plane: upwards along the sign of the gradient, sideways along
# a random direction; black is the border where the answer changes.

# %% tags=["hide-input"]
shown = test[:4]
figures.surfaces_figure(
    {
        name: evaluation.loss_surface(networks[name], shown.x, shown.y, eps=2 * P.eps, generator=session.generator())
        for name in order
    },
    images=len(shown), eps=P.eps, label="Figure 3.3",
    caption="The margin around four test images, in a square of ± 2ε: blue is answered rightly, red wrongly, the black line is the border "
    "and the dot the image. Up is the sign of the gradient at the dot, sideways a random one. Each picture has a color scale "
    "of its own.",
)

# %% [markdown]
# Ordinary training has the border close by, straight up. After noise or attacks it is farther away. But now compare squeezing
# alone with ordinary training: by these pictures it has gained, and in the worst case it has not. Nor do they tell squeezing with
# noise from PGD-7: about as much of the plane is misread, and in the worst case the two lie far apart. A plane through an image
# shows one direction that the gradient knows and one that nobody chose; whoever wants to fool the network chooses among all.
# Pictures like these can show that gradients are broken. That they look smooth proves nothing.
#
# ## What ten seeds say
#
# From here on the numbers are recorded. First digits: ten seeds, every image tested twice. PGD training got as many trials as smoothing and squeezing
# together, of which the better counts. All were chosen under the *weak* attack on validation images, as a believer in the method would choose. Only then came the test
# images and the stronger attacks.

# %% tags=["hide-input"]
recorded = results.load_result("regularization.digits")
Markdown(f"*{recorded.provenance()}.*")

# %% tags=["hide-input"]
figures.sweep_figure(
    recorded, {"ls+noise": ("alpha", "smoothing α"), "lsq+noise": ("beta", "squeezing β")}, label="Figure 3.4",
    caption="The trials, recorded: accuracy of validation images under the weak attack (%), mean over ten seeds, for every strength of "
    "the regularizer and of the noise.",
)

# %% [markdown]
# Noise of σ = 0.2 to 0.3 helps; a mild penalty adds little, a strong one does harm.
#
# Two more penalties join here, both with noise. *Clean logit pairing* {cite:p}`kannan2018pairing` draws the logits of random
# pairs of images together. *Similarity*, a penalty of our own, draws the logits of all images of a minibatch towards their mean.
# Now let the attack grow. Move the slider from the left: each position adds an attack, and an image counts only if it has
# survived all up to there.

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
    since="weak", label="Figure 3.5",
    caption="How many test images survive as the attack grows, recorded: mean over ten seeds with 95% intervals, the best on top. Pale: "
    "what has been lost since the weak attack.",
)

# %% [markdown]
# What does each part contribute? Take every arm against the control that differs from it in one thing:

# %% tags=["hide-input"]
figures.gains_figure(
    recorded,
    {
        "pgd-7": "natural", "noise": "natural", "lsq": "natural", "ls": "natural",
        "lsq+noise": "noise", "ls+noise": "noise", "pairing+noise": "noise", "similarity+noise": "noise",
    },
    label="Figure 3.6",
    caption="Test images gained over a control, recorded: mean over ten seeds with 95% intervals, by the weak attack and in the worst case.",
)

# %% [markdown]
# Against the weak attack each penalty alone gains much, and in the worst case a good part of that is gone. Added to noise, most
# penalties move the worst case by little on digits. One is an exception, and not one of the thesis: logit pairing.

# %% tags=["hide-input"]
display(differences(recorded, {"squeezing alone": "weak(lsq) - worst(lsq) - (weak(natural) - worst(natural))"},
                    caption="what the ensemble takes beyond what the weak attack took, over ordinary training"))
differences(recorded, {figures.NAMES[arm]: f"worst({arm}) - worst(noise)"
                       for arm in ("pairing+noise", "lsq+noise", "ls+noise", "similarity+noise")},
            caption="gained over noise in the worst case")

# %% [markdown]
# Pairing gains in the worst case as much as against the weak attack; of the other three none
# can be told from noise. Pairing was looked at with three others and after the fact, but the interval is far enough from zero to
# bear that. For the rest the thesis is right that noise is needed, and the reason is plain: it is the noise that defends.
#
# ### Tangents
#
# Why does squeezing look so good in theory? Equation {eq}`eq-ratio` says how far the border is by the tangent. An attack can say how
# far it really is, or at least no farther: try growing radii, each a sixth larger than the last, until PGD on the margin succeeds.

# %% tags=["hide-input"]
figures.tangent_figure(
    recorded, ["natural", "noise", "lsq+noise", "pgd-7"], eps=P.eps, label="Figure 3.7",
    caption="Distance to the border, a dot for each test image of one seed: by the tangent (across) and found by an attack (up). On the line "
    "the tangent is right; below it, it promised too much. A distance is the largest change of a pixel, in units of this chapter's ε; the "
    "dotted line is one ε.",
)

# %% tags=["hide-input"]
figures.gap_table(recorded, ["natural", "noise", "ls+noise", "lsq+noise", "pgd-7"])

# %% [markdown]
# (Medians over all test images of all seeds: logit gap, gradient gap, and, in units of ε, their ratio and the distance found.) This is the chapter
# in one table. Both penalties do what they were made for: logits and slopes shrink, the slopes more, and the tangent moves the
# border away, with squeezing to about where adversarial training has it. But on digits the border did not move, to within a step of the radii
# that were tried. Found by an
# attack, it is where noise alone had put it. (That slopes shrink with the logits is no finding, it is what squeezing is; the
# ratio of the two is.) A penalty can flatten the margin *at* an image, which is all that {eq}`eq-ratio` looks at, and a little
# farther away it falls more steeply instead.
#
# ### Scale
#
# Divide all logits by a number $T$. No answer changes, at any image; the tangent's ratio {eq}`eq-ratio` does not change either. What
# changes is the cross-entropy. For small $T$ the network becomes so sure that the loss is zero to the last digit, and so is its gradient.
# An attack that follows it stands still.

# %% tags=["hide-input"]
figures.scales_figure(
    recorded, ["natural", "lsq+noise", "pgd-7"], label="Figure 3.8",
    caption="Accuracy under PGD-20 with the logits divided by T, recorded, mean over ten seeds. The networks' answers are the same all along. "
    "Lines: the attack follows the cross-entropy. Dotted: it follows DLR, a ratio of logits.",
)

# %% [markdown]
# So a method that changes the size of the logits changes what an attack on the cross-entropy can see, whether or not it changes
# the robustness. Squeezing and smoothing are such methods by construction. That is reason enough to judge them by a loss without scale.
#
# ### The same on scenes
#
# Digits are eight pixels wide. Scenes are in color, the network is larger and ε is 8/255; there each method has one setting, three seeds
# and no trials.

# %% tags=["hide-input"]
scenes = results.load_result("regularization.scenes")
Markdown(f"*{scenes.provenance()}.*")

# %% tags=["hide-input"]
figures.strength_slider(
    scenes, RUNGS, ["natural", "noise", "ls+noise", "lsq+noise", "pgd-7"], since="weak", label="Figure 3.9",
    caption="How many scenes survive as the attack grows, recorded: mean over three seeds with 95% intervals, the best on top. Pale: what "
    "has been lost since the weak attack.",
)

# %% tags=["hide-input"]
figures.gains_figure(
    scenes, {"pgd-7": "natural", "noise": "natural", "lsq+noise": "noise", "ls+noise": "noise"}, label="Figure 3.10",
    caption="Scenes gained over a control, recorded: mean over three seeds with 95% intervals, by the weak attack and in the worst case.",
)

# %% tags=["hide-input"]
figures.gap_table(scenes, ["natural", "noise", "ls+noise", "lsq+noise", "pgd-7"])

# %% [markdown]
# ("Beyond": at the largest radius tried, 9/4 of ε, the attack had not crossed the border of half of the images.)
#
# Here is the story as it was told. Put the slider on the weak attack: squeezing with noise stands beside PGD training, at an eighth of
# the passes. Move on, and every stronger attack takes more from it, while PGD training loses next to nothing. In the worst case
# squeezing may add something to noise here; three seeds cannot tell (Figure 3.10). And the tangent is wrong by a factor: by {eq}`eq-ratio` the squeezed network is
# safer than the one trained against attacks, and its border is found at a small part of that distance.
#
# ## What the thesis claims, and what we measured
#
# Verdicts are computed as in [the first chapter](01_defenses.ipynb).

# %% tags=["hide-input"]
claims_table("regularization")

# %% tags=["nbval-check-output", "hide-cell"]
for line in claims_table("regularization").verdict_lines():
    print(line)

# %% [markdown]
# Two things were expected and did not come.
#
# *On digits, squeezing does not even look as robust as PGD training*, as it nearly does on scenes. It is not for want of trials, of which the
# two penalties had as many as PGD training, nor of strength: stronger noise or stronger penalties do worse (Figure 3.4). Milder penalties might do a little better, for
# with smoothing the trials nearly always chose the mildest on offer (below), but they lead back towards noise alone.
# Noise of σ = 0.3 is already twice ε in every pixel, and the network reads clean digits as well as before. But random directions are not what an attack takes, and to
# withstand them teaches only part of the rest.

# %% tags=["hide-input"]
for arm, (knob, called) in {"ls+noise": ("alpha", "smoothing α"), "lsq+noise": ("beta", "squeezing β")}.items():
    mildest = min(trial[knob] for trial in recorded.cells[arm][0]["trials"])
    chosen = [cell["chosen"][knob] for cell in recorded.cells[arm].values()]
    print(f"{called}: the mildest, {mildest:g}, was chosen in {chosen.count(mildest)} of {len(chosen)} seeds")

# %% [markdown]
# *Masking does not show in transfer.* Examples made on an ordinary network fool the squeezed one less than its own gradient does, so
# its gradient leads somewhere. What flattered it was not a broken gradient but a lazy attack, one start and ten small steps, and
# the same attack flatters noise alone by nearly as much. (The same is true of smoothing alone, of which the claim in the literature
# speaks. On scenes the test says little: examples made on an ordinary network turn hardly any image there.) To call every fall from a weak attack to a strong one
# *masking* would be wrong; to publish the weak number would be too.
#
# One verdict says less than it seems. The rule about scale asks that an attack on the cross-entropy be fooled by five points on the
# robust network too. On scenes PGD-20 takes less than five points from that network at any scale, so there the rule could not be met.
#
# ## Since the thesis
#
# **Logit squeezing was broken soon.** {cite:t}`mosbach2018pairing` attacked it with more steps and more restarts. On MNIST (ε = 0.3) a squeezed
# network fell from 70.6% under the baseline attack to 5.0%, on CIFAR-10 (ε = 16/255) from 27.0% to 1.7%; adversarial training from 95.2% to
# 88.0% and from 16.0% to 6.7%. Clean logit pairing {cite:p}`kannan2018pairing` fared no better, which is at odds with what we
# saw; but ours has noise beside it. Their code squeezes without noise unless told otherwise: the arm of ours that falls farthest too.
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
# `x -> (x * 7).round() / 7` has no slope anywhere, so there is no gradient. The diagnosis says so; what counts then is the search without
# gradients and examples made on another network. The honest attack removes the rounding first and judges with it.
# :::
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
