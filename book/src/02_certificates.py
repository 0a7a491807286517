# %% [markdown]
# # Broken certificates
#
# **The question of this chapter: what does a certificate of robustness certify?**
#
# The last chapter judged defenses by attacks, and every number in it came with an unspoken "so far": nobody knows next
# year's attack. A *certificate* promises more. Beside its answer for an image the network hands out a radius and a proof: no
# image within that radius gets another answer. There is nothing left to try.
#
# The thesis asks what such a promise is worth to the person who reads it {cite:p}`ghiasi2022thesis,ghiasi2020shadow`. It makes
# images that a person reads as before, that the network reads wrongly, and that come with a certificate all the same. No
# proof is broken in doing so, and that is the point.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - how noise turns any classifier into one with certificates, with a slider over the noise;
# - what a radius owes to the number of samples behind it;
# - images side by side: natural, forged, and attacked in the ordinary way;
# - a blind test: can *you* read what the network cannot?
# - certificates of another kind, from intervals, and how they fall to the same idea;
# - what the thesis claims, what we measured, and what somebody who is handed a certificate should do.
#
# Reading takes about 35 minutes; running the notebook takes about a minute on two CPU cores. It helps to have read
# [the first chapter](01_defenses.ipynb).
# :::

# %% [setup]

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown

from thesis_kit import attacks, certification
from thesis_kit.experiments.sources import bounded_network, class_names, smoothed_network
from thesis_kit.reporting import certificates as figures
from thesis_kit.reporting import results, scenes
from thesis_kit.reporting.ledger import claims_table

P = session.chapter("certificates")
test = session.splits("certificates", task="task").test
names = class_names(P.task)
networks = {sigma: smoothed_network(session, sigma) for sigma in P.sigmas}

# %% [markdown]
# ## A certificate made of noise
#
# Take any classifier $f$ and never ask it about an image $x$ itself. Ask it about many noisy copies $x + \eta$ with
# $\eta \sim N(0, \sigma^2 I)$, and answer what it answers most often. This vote is the *smoothed classifier*
# {cite:p}`cohen2019smoothing`:
#
# $$ g(x) = \arg\max_c \; P\big(f(x + \eta) = c\big) . $$
#
# Now move $x$ a little. The cloud of noisy copies moves along, and the old cloud and the new one overlap. Whatever $f$ does, it
# sees mostly the same images, so the vote cannot change by much. By how much is known exactly. If the winning class has
# probability $p > 1/2$ at $x$, it wins everywhere within the $\ell_2$ radius
#
# ```{math}
# :label: eq-radius
# R = \sigma\, \Phi^{-1}(p) ,
# ```
#
# where $\Phi^{-1}$ is the quantile function of the standard normal distribution: $p = 84\%$ gives $R = \sigma$, $p = 97.7\%$
# gives $2\sigma$. Nothing about the network was used. It may have any size and any training. But a network that has only seen
# clean images reads noisy ones badly; its $p$ is small and so is $R$. So one trains on noisy images, and a network is made for
# one $\sigma$.
#
# Move the slider. Each position has its own network, trained on that much noise.

# %% tags=["hide-input"]
figures.noise_slider(
    networks, test.x[:1], names, n=P.n, start=1, label="Figure 2.1",
    caption="Three noisy copies of a scene, and what the network answers to two hundred of them. Below the slider: the "
    "certified answer and radius.",
)

# %% [markdown]
# More noise means a longer reach, $\sigma$ being the unit of $R$, as long as the network can still see through it. There is no
# best $\sigma$: small noise certifies many images for a little way, large noise fewer images further out.
#
# ### What the certificate owes to its samples
#
# The probability $p$ is not known. It is estimated from samples, and the certificate has to be right in spite of that: the share
# of votes is replaced by a bound $\underline p$ that lies above the true $p$ with probability at most $\alpha$ only (the bound of
# Clopper and Pearson; $\alpha = 0.001$ here and in the papers). A few samples choose the class first, and *others* bound its
# probability, so that the choice does not flatter itself. If $\underline p$ does not reach one half, the classifier *abstains*.
#
# Two things follow that matter for the rest of the chapter. A certificate holds with confidence $1 - \alpha$, not with certainty. And
# it depends on how many samples were spent. Even if *all* $n$ votes agree, $\underline p$ is no more than $\alpha^{1/n}$, so
# that no radius exceeds
#
# ```{math}
# :label: eq-cap
# R_{\max} = \sigma\, \Phi^{-1}\big(\alpha^{1/n}\big) .
# ```

# %% tags=["hide-input"]
figures.caps_figure(
    P.alpha, label="Figure 2.2",
    caption="The largest radius that n samples can certify, all of them agreeing, at α = 0.001. Not measured: this is "
    "equation (2.2).",
)

# %% [markdown]
# With your own model a certificate is one call, and its budget is printed with it:

# %%
model, first = networks[P.sigma], test[: P.images + 2]
certificates = certification.certify(model, first.x, sigma=P.sigma, n=P.n)
print(certificates[0])
print(certificates.budget)

# %% [markdown]
# ## What a certificate does not say
#
# Read the promise again: *no image within $R$ of $x$ gets another answer than $x$ got.* It says that the answer is stable. It does not
# say that the answer is right; that was never proved. A wrong label with a certificate is no contradiction, it is a *stable
# mistake*.
#
# And the promise speaks of a ball. A radius of one half sounds like much and is little: for an image of $32 \times 32$ pixels and
# three channels it is a change of 0.009 in every number, two gray levels of 256. A shadow across the picture, another light, a tint:
# all of these lie far outside of every ball that anybody certifies, and a person would not mention them.
#
# :::{admonition} The idea of the Shadow Attack
# :class: important
# Leave the ball. Look for an image that (1) looks natural, (2) is answered wrongly, and (3) lies so deep inside the wrong
# class that the certificate comes out large. Nothing forbids it: a certificate for the wrong answer at the *new* image says nothing
# about the old one.
# :::
#
# What "natural" means is put into three penalties, and there is no bound on the size of $\delta$:
#
# ```{math}
# :label: eq-shadow
# \min_\delta \; \mathbb{E}_\eta \, L\big(f(x + \eta + \delta),\, t\big) + \lambda_{tv}\, \mathrm{TV}(\delta)
# + \lambda_c\, C(\delta) + \lambda_s\, D(\delta) .
# ```
#
# $L$ pulls the noisy copies towards a wrong class $t$, on average over draws of noise, because the vote is counted over noise. $\mathrm{TV}$,
# the sum of squared differences of neighboring pixels, keeps $\delta$ smooth, as a shadow is. $C$, the squared length of
# the channels' mean sizes, keeps it faint. $D$, the difference between the channels, keeps it gray; in the released runs, and here, there
# is a single gray channel and $D$ is zero. The descent is the plainest there is: a fixed batch of noise, a fixed step
# along the gradient, clipping to the pixel range once at the end. Every wrong class is tried, and the one with the largest
# certificate is kept.
#
# Take some images that are certified with the right label, and forge. (The published attack makes 300 steps with 400 draws
# of noise. What runs here takes fewer; what they are worth is measured below.)

# %%
part = first[(certificates.labels.to(first.y) == first.y).nonzero()[: P.images, 0]]
knobs = {"constants": P.constants, "finalists": P.finalists, "final": P.final}
forged = attacks.spoof(model, part.x, part.y, sigma=P.sigma, n=P.n, **knobs)
print(f"{int(forged.wrong.sum())} of {len(part)} are certified with a wrong label")

# %% [markdown]
# For comparison, an attack of the ordinary kind: $\ell_2$-PGD through noise {cite:p}`salman2019smoothadv`, to the same wrong
# class, allowed exactly as large a change as the shadow was.

# %% tags=["hide-input"]
few, hidden = slice(0, P.images_few), slice(P.images_few, None)
ordinary = attacks.smoothed_pgd(
    model, part.x[few], part.y[few], eps=forged.norms[few], target=forged.targets[few], sigma=P.sigma,
    steps=P.final.steps, draws=P.final.draws,
)
certify = {"sigma": P.sigma, "n": P.n, "seed": 1}
figures.triptych(
    {
        "natural": (part.x[few], certification.certify(model, part.x[few], **certify)),
        "Shadow": (forged.images[few], forged.certificates[few]),
        "ℓ₂-PGD": (ordinary, certification.certify(model, ordinary, **certify)),
    },
    names, label="Figure 2.3",
    caption=f"Certified labels and radii of natural images, of Shadow images, and of ordinary adversarial images of the same "
    f"norm (σ = {P.sigma:g}, {P.n:,} samples, α = {P.alpha:g}).",
)

# %% [markdown]
# Both attacks get wrong labels with certificates: far outside the ball a certificate protects nobody. They differ in what a person
# sees. One image looks tampered with, the other badly lit.
#
# ### A blind test
#
# Decide for yourself. What is the main object in each of these? (The classes are disk, crescent, heart, spade, triangle, arrow, drop
# and flower.)

# %% tags=["hide-input"]
scenes.sheet(
    forged.images[hidden], [f"{i + 1}" for i in range(len(part) - P.images_few)], columns=4, label="Figure 2.4",
    caption="Forged images without their labels. The network certifies every one, or nearly, as something else than it shows.",
    alt="Scenes with smooth gray shadows; the labels are given below.",
)

# %% tags=["hide-input"]
answers = "\n".join(
    f"- **{i + 1}**: {names[y]}; the network says "
    + ("nothing, it abstains" if found.abstained else f"{names[found.label]}, certified within {found.radius:.2f}")
    for i, (y, found) in enumerate(zip(part.y[hidden].tolist(), forged.certificates[hidden], strict=True))
)
Markdown(f":::{{admonition}} Answers\n:class: dropdown\n{answers}\n:::")

# %% [markdown]
# ## Certificates of another kind
#
# Noise is one way to a certificate; arithmetic is another. Push not an image through the network but a *box* of images, all those
# within $\ell_\infty$ distance $\varepsilon$: for every pixel a center and a radius. Through a linear layer $Wz + b$ the center goes as
# always and the radius $r$ becomes $|W|\, r$; through a ReLU both ends of every interval are clipped at zero. This is
# *interval bound propagation* {cite:p}`gowal2018ibp`. At the end stand lower bounds of the *margins* $z_y - z_j$. If all of them
# are positive, no image in the box is answered otherwise. No samples, no confidence: a proof, in about two forward passes.
#
# Intervals forget how numbers depend on each other, so the bounds of an ordinary network are useless. Networks are *trained* for
# them: on the cross-entropy of the bounds instead of the logits, while the box grows. CROWN-IBP {cite:p}`zhang2020crownibp` uses
# tighter bounds on the way, by carrying a linear function of the logits back through the network once.

# %%
eps = P.interval_eps[0]
bounded, some = bounded_network(session, "crown-ibp", eps), test[: P.interval_images]
for bound in ("ibp", "crown-ibp"):
    found = certification.verified_error(bounded, some.x, some.y, eps, bound=bound)
    print(f"{bound:9} verifies {1 - found.error:.0%} of {len(some)} natural images")

# %% [markdown]
# The recipe of the forger carries over. In place of the vote stands the bound: make the lower bounds of the *wrong* class's margins
# positive, with the same penalties, and the box around the forged image is proved to be wrong, through and through.

# %%
x, y = part.x[few], part.y[few]
fakes = attacks.spoof_bounds(bounded, x, y, eps=eps, constants=P.interval_constants)
print(fakes)

# %% tags=["hide-input"]
scenes.sheet(
    torch.cat([x, fakes.images]),
    [names[label] for label in y.tolist()] + [f"proved: {names[t]}" for t in fakes.targets.tolist()],
    columns=P.images_few, label="Figure 2.5",
    caption="Natural images (above) and forged ones (below), with what is proved of every image in the box around them.",
    alt="Three scenes and their forged versions with smooth gray shadows.",
)
