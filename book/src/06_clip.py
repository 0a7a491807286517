# %% [markdown]
# # What language supervision changes
#
# **The question of this chapter: what changes when the teacher is language?**
#
# [The chapter before](05_features.ipynb) looked into a network that was taught by labels: one word an image, and nothing else. Here
# are Vision Transformers that are twins. They have the same layers, started from the same weights and saw the same images in the same order. One was
# told labels, another *sentences*: "a red star left of a blue ring". That one can be told a sentence and asked for a picture.
#
# A sentence differs from a label in two ways. It is language, and it says more. So there are two more twins: one was told the class alone, but in sentences;
# and one was told by labels all that sentences say.

# %% [setup]

# %% tags=["hide-input"]
from functools import partial

import torch
from IPython.display import Markdown, display

from thesis_kit import attacks, certification, zoo
from thesis_kit.chapters.clip import figures, published_units, readers, twin_measures
from thesis_kit.data.scenes import captions
from thesis_kit.data.scenes.captions import with_article
from thesis_kit.data.scenes.pairs import LANGUAGE, directed
from thesis_kit.data.scenes.vocabulary import COLORS, RELATIONS, SHAPES
from thesis_kit.evaluation import correct, robust_accuracy
from thesis_kit.features.scores import best_concept
from thesis_kit.language import invert_prompts, name_by_text, reads_order, scene_classes, shortened, zero_shot
from thesis_kit.ledger import results
from thesis_kit.show.live_text import text_box
from thesis_kit.show.tables import table
from thesis_kit.show.verdicts import claims_table

P = session.chapter("clip")
device = session.device
world = LANGUAGE[P.data]
scenes = world.draw(P.images, P.size, seed=77, device=device)  # seen by no twin
clip, labels = (zoo.load(name, device=device) for name in ("clip-scenes64", "twin-scenes64"))

# %% tags=["hide-input"]
shapes = [SHAPES[i] for i in range(1, len(SHAPES), len(SHAPES) // P.shapes)]  # one of each theme
colors = list(COLORS)[::3][: P.colors]
prompts = [with_article(f"{color} {shape}") for color in colors for shape in shapes for _ in range(P.each)]
quick = shortened("small", P.steps, copies=P.copies)
drawn = invert_prompts(clip, prompts, size=P.size, schedule=quick, seed=session.seed, progress=False)
fitted = world.draw(P.fitted, P.size, seed=78, device=device)
verifier, reader = zoo.load("verifier-scenes64", device=device), readers.color_reader(fitted)
seen = readers.read(drawn.images.to(device), verifier, reader)
told = readers.as_words(*seen)
places = [prompts.index(with_article(f"{color} {shapes[0]}")) for color in colors]
colored = sum(told[place].startswith(color) for color, place in zip(colors, places, strict=True))
figures.prompts_figure(
    {"": [drawn.images[place] for place in places]}, [f"“{prompts[place]}”" for place in places], label="Figure 6.1",
    caption="Sentences as the network taught by captions draws them, from noise and with nothing stretched; below each, what two networks "
    f"that took no part read in it. The color is read in {colored} of {len(places)}, and all have points, as a star might.",
    alt=f"{len(places)} pictures of a blob in the middle of noise: {', '.join(colors)}.", below=[f"read as: {told[place]}" for place in places],
)

# %% [markdown]
# The networks that made language a teacher are called CLIP {cite:p}`radford2021clip`: an *image tower* and a *text tower* end in one
# space, and training pulls each picture to its own caption and pushes it from everyone else's,
#
# ```{math}
# :label: eq-contrastive
# L \;=\; -\tfrac12 \operatorname{mean}_i \Big( \log \frac{e^{s\,v_i\cdot t_i}}{\sum_j e^{s\,v_i\cdot t_j}}
#   + \log \frac{e^{s\,v_i\cdot t_i}}{\sum_j e^{s\,v_j\cdot t_i}} \Big) ,
# ```
#
# where $v_i$ is image $i$ and $t_i$ its caption, both brought to length 1, and $s$ a scale that is learned. The thesis looks into
# such towers {cite:p}`ghiasi2022vit,ghiasi2022thesis` and finds what label-trained ones lack: a unit for "before and after", one for
# crowds, one for morbidity, one for music. It shows them in pictures, a few of each, without a count and without a control; and the
# networks that it compares saw different images.
#
# Here, only the teacher differs. Our [scenes](00_scenes.ipynb) come with true captions that name color, texture, background, number and
# relation, so it is known what the sentences hold, and every unit can be asked.
#
# :::{admonition} What you will see, and how long it takes
# :class: tip
# - the same units in four twins, with a slider, and names for them by measurement and by text;
# - what each twin's features still know of an image, beside a network that has learned nothing;
# - sixteen sentences drawn from noise, and what others read in the pictures;
# - a quiz: does the pair read the order of words?
# - whether language makes robust, and whether a word on a picture overrules it.
#
# Reading takes about 15 minutes, running it two to three on two CPU cores. Pictures are of one twin of each kind; what is claimed at
# the end was measured on three of each.
# :::
#
# ## The pair, and what it was taught
#
# Our CLIP is small. Its image tower is four blocks of a Vision Transformer behind a *convolutional stem* {cite:p}`xiao2021stem`: four strided
# convolutions make 16 patches of an image of 64 × 64. (In trials that were not recorded these learned shapes in far fewer updates than squares cut from
# the image.) The text
# tower is two blocks over the words that scenes can be told in. Training scenes never repeat. Half of the captions name the class alone ("a star"),
# half say everything, as people say now little and now much. A caption counts as right for every image that it is true of in the
# same words; without that, two pictures of "a red star" would be pushed from each other's caption.

# %%
print(clip.tokenizer)
for name in ("clip-scenes64", "twin-scenes64"):
    about = zoo.entry(name)
    print(f"{name}: " + ", ".join(f"{score} {value.value:.1%}" for score, value in about.scores.items()))

# %% [markdown]
# *captions* is the share of 1,000 test images whose nearest caption of 1,000 says what theirs does, *images* the same from captions to images,
# and *clean* the accuracy in naming sixteen shapes. Both are far from perfect, for the scenes are hard: objects are small, and other objects,
# textures and backgrounds stand in the way. After as many updates the twin taught by labels names more shapes; it was told nothing else.
#
# The other two twins were trained as long, on the same scenes. The captions of one say the class and no more. The other answers a question by labels for
# each thing that captions can say (shape, color, texture, number, relation, background, theme, and the other object), and of every scene.
#
# What a caption says matters as much as that it is one. In trials that were not recorded, a pair that was told everything of every scene learned color and
# number and hardly any shape: to tell one scene of a minibatch from 127 others these go a long way, and the shape can wait. Short captions made it look.
#
# A pair has no classes. But it has words, and `zero_shot` makes an ordinary classifier
# of them: the class whose sentence lies nearest {cite:p}`radford2021clip`. Whatever this book does to classifiers works on it.

# %%
by_words = zero_shot(clip, scene_classes())  # "a star", "an arrow", …
print(by_words(scenes.images[:2]).shape)

# %% [markdown]
# ## Units, side by side
#
# Twins began with the same weights, so the same place can be looked up in each. Four of them stand side by side. Two were told the class alone, two all
# that captions can say; one of each by labels, the other by sentences. Under its strongest scenes stands each unit's name: of the concepts that captions
# can say, the one that it tells best from the rest.

# %% tags=["hide-input"]
recorded = results.load_result("clip.scenes")
FOUR = {"class, by labels": "labels", "class, by captions": "class-captions", "all, by labels": "attributes", "all, by captions": "captions"}
figures.units_explorer(
    recorded, FOUR, label="Figure 6.2",
    caption=f"Hidden units of the last two blocks, evenly spaced, none picked: of {recorded.settings('units@labels')['images']:,} scenes the four that excite "
    "each most, in four twins. Below them the concept that the unit detects best, and its AUROC on scenes that did not choose it (½ is blind). Move the slider with the mouse, a "
    "finger, or the arrow keys.",
)

# %% tags=["hide-input"]
TWINS = {**FOUR, "class, by labels, half as long": "early-labels", "random weights": "random"}
figures.twins_table(
    recorded, "units", {"selective": "select a concept within a class", "themes": "stand for a theme", "count": "AUROC for “many” (95th percentile)", "N": "scenes named rightly"}, TWINS,
    caption="hidden units of the last two blocks, and how many scenes a twin names by its shape: the mean over three twins, in brackets its 95% interval over twins. Asked about "
    f"{recorded.settings('units@labels')['images']:,} scenes that no twin was trained on",
)

# %%
Markdown(f"*{recorded.provenance()}.*")

# %% [markdown]
# A unit *selects a concept within a class* if, among scenes of one class in which objects cover about as much, it tells
# those with the concept from those without (AUROC of .8 or more, and above what shuffled concepts reach): a color, a relation, a background, "more than one". It
# *stands for a theme* if the weakest of the theme's four shapes excites it more than the best of all others. The third column asks
# whether several objects excite a unit more than one, of the same shape and total area; it is the AUROC that one unit in twenty surpasses.
#
# Half of the thesis's observation is there: units of the twins that were told all in sentences select such concepts several
# times as often as those of twins that were told the class by labels. But it is not language that does it. Told the class alone, sentences give no more such
# units than labels do. Told all, labels give them too, about as many as far as three twins tell. (They tell all of every scene, where half of the captions say no more than the class.)
# The names in Figure 6.2 say what units are for then: mostly colors where sentences told all, mostly backgrounds and colors where labels did. Of the other half a little is
# there: several objects excite the units of twins that were told all in sentences somewhat more than those of twins that were told the class by labels. But by
# this measure no twin has a unit for a theme, though captions name themes now and then. Even twins that labels told the theme have none, so the
# measure fails its control and decides nothing.
#
# %% tags=["hide-input"]
figures.blocks_figure(
    recorded, {**FOUR, "random weights": "random"}, label="Figure 6.3",
    caption="Recorded: the share of each block's 384 hidden units that select a concept within a class, all of them asked; a line a twin.",
)

# %% [markdown]
# No depth is left out: from the first block on, a quarter and more of the units of twins that were told all select something, and hardly any of the others'.
#
# Twins do not name shapes equally well, as the last column of the table says. The row "half as long" is therefore a label twin that was stopped when it was about as good as those that were told
# all. Few of its units select anything, as of its elders: that is not what the difference is due to.
#
# ## Names by text
#
# Units can be named without measuring. Take a unit's strongest scenes and let the pair say which words fit them better than other scenes
# {cite:p}`oikarinen2023dissect`. That needs no labels, which is why it is used on real networks. Here it can be checked.

# %%
words, has = twin_measures.spoken(scenes)
acts = twin_measures.late_units(clip.image, scenes.images)
by_text, _ = name_by_text(clip, acts, scenes.images, words, k=P.strongest)
concept, auroc = best_concept(acts, has)
rows = [(str(unit), words[by_text[unit]], f"{words[concept[unit]]} ({auroc[unit]:.2f})") for unit in range(0, acts.shape[1], acts.shape[1] // 8)]
table(rows, ("unit", "by text", "by measurement (AUROC)"), caption="eight units of the caption twin, evenly spaced")

# %% tags=["hide-input"]
named, agree, differ = (recorded.mean(measure, "names@captions") for measure in ("named", "agree", "differ_shuffled"))
print(
    f"recorded, three pairs: {named.value:.0%} ({named.low:.0%} to {named.high:.0%}) of their units have a name by measurement; text gives the same one to "
    f"{agree.value:.0%} ({agree.low:.0%} to {agree.high:.0%}) of these, and to {1 - differ.value:.0%} when activations are exchanged among images"
)

# %% [markdown]
# Naming by text finds the measured name far more often than chance does, and misses it more often than not. The words come from the pair: where it
# confuses two shapes it has no right word for a unit that does not. A name is as good as the namer.
#
# With a GPU and a network connection, `PROFILE = "full"` does the same for OpenAI's ViT-B/16 and for a ViT-B/16 that was taught ImageNet's labels, on photographs. Their units are
# named by one of the thousand classes, or by what else a photograph may show: a crowd, a view from above, music. Which network has more of the second kind?

# %%
if P.published:  # a pair and a network taught by labels, in the profile full
    unlike = published_units.named_units(*P.published, P.images, device=device)
    rows = [(called, *(f"{share:.0%}" for share in shares)) for called, shares in unlike.items()]
    display(table(rows, ("network", "units not named by a class", "with activations exchanged")))

# %% [markdown]
# ## What features still know
#
# Units are one way to ask. Another is a *linear probe*: how well can the number of objects, their color, the background or the other
# object's shape be read off the features that the head is given? A label says only the class, and nothing asks a network to keep the rest.

# %% tags=["hide-input"]
PROBED = {"probe_shape": "shape", "probe_color": "color", "probe_count": "count", "probe_background": "background", "probe_other_shape": "other shape",
          "probe_theme": "theme"}
figures.twins_table(
    recorded, "probe", PROBED, TWINS, caption="what a linear probe reads, corrected for guessing (0% is chance, 100% perfect): the mean over three twins and its 95% interval over twins, on " f"{recorded.settings('probe@labels')['images']:,} scenes"
)

# %% [markdown]
# Full captions make a network keep the color, where class labels do not. The last row is the control without which such numbers mean
# little: random weights keep some color, number and background of every image. Measured by it, being told the class made networks *lose* color, whether labels or sentences told it.
# And it made them keep more of the number and of the other shape, of which nobody told them: to find the shape one has to find the objects.
#
# Again it is not language. The twin that was told all by labels keeps the color too, and the background almost wholly, which the one told all in sentences lost, although three of four full
# captions name it. A label for the background has to be answered for every scene. To find one's own among 128 captions, it may be enough to know other things.
#
# ## Told a sentence, what does it draw?
#
# A pair can be inverted as a classifier can. Start from noise, and change the picture until it points where the sentence does
# {cite:p}`kazemi2024clip`:
#
# ```{math}
# :label: eq-prompt
# x^* \;=\; \arg\min_x \operatorname{mean}_k \big\| v(a_k(x)) - t \big\| + \lambda\, TV(x) ,
# ```
#
# where $v$ and $t$ have length 1 as before, the $a_k$ turn, shift and zoom the picture a little, and it grows from a quarter
# of its size to the whole. Published pictures are stretched, each for itself, to the full range of pixels. These are shown as
# they are.

# %% tags=["hide-input"]
at = {prompt: prompts.index(prompt) for prompt in prompts}
of_color = {color: [prompt for prompt in at if color in prompt] for color in colors}
pictures = {color: {one: [drawn.images[at[one] + i] for i in range(P.each)] for one in said} for color, said in of_color.items()}
readings = {color: {one: [told[at[one] + i] for i in range(P.each)] for one in said} for color, said in of_color.items()}
figures.prompt_explorer(
    pictures, readings, name="color", label="Figure 6.4",
    caption=f"{len(at)} prompts, {P.each} starts each, drawn by the pair and shown as they are. Under each, what others read in it: the shape by an "
    "independent residual network, the color by a linear reader of how much of which color there is, in squares of 8 × 8 pixels. Move the slider for another color.",
)

# %%
wanted = torch.tensor([[SHAPES.index(p.split()[2]), list(COLORS).index(p.split()[1])] for p in prompts])
found = torch.stack([one.cpu() for one in seen], dim=1)
other = wanted.roll(len(wanted) // 2 + P.each, dims=0)  # another prompt, of another color and shape
own_right, other_right = ((found == one).double().mean(dim=0) for one in (wanted, other))
single = scenes.table.present.sum(dim=1) == 1
real = readers.read(scenes.images[single], verifier, reader)
truth = (scenes.table.shape[single, 0], scenes.table.color[single, 0])
rows = [
    ("of the prompt itself", *(f"{share:.0%}" for share in own_right.tolist())),
    ("of another prompt", *(f"{share:.0%}" for share in other_right.tolist())),
    ("of real scenes with one object", *(f"{(r == t).double().mean():.0%}" for r, t in zip(real, truth, strict=True))),
]
table(rows, (f"read in {len(prompts)} pictures", "shape", "color"))

# %% [markdown]
# The color is drawn and can be read, and the shape in some of the pictures; another prompt's hardly ever. That the pair likes each picture says nothing, for it was changed until it
# did. That others read a red leaf in it says something.
#
# Draw your own: with a kernel, a line for your sentence stands under the figure. Words that scenes are never told in are refused, and near ones
# offered.

# %%
def three_of(prompt):
    mine = invert_prompts(clip, [prompt] * 3, size=P.size, schedule=quick, seed=1, progress=False)
    return figures.prompts_figure(
        {"": list(mine.images)}, ["start 1", "start 2", "start 3"], label="Figure 6.5", caption=f"“{prompt}” from three starts.",
        alt=f"Three pictures drawn for “{prompt}”.",
    )


text_box(three_of, "two red stars over waves", name="prompt")

# %% [markdown]
# **A bias, drawn.** The paper behind this method uses it to bring out what the captions of the web tie together
# {cite:p}`kazemi2024clip`. Ours is tied on purpose: a pair was trained on scenes of which nine in ten have the color of their class. It and the pair of before are asked for bare
# names.

# %% tags=["hide-input"]
bare = {name: f"{name}\n({list(COLORS)[i % len(COLORS)]})" for i, name in enumerate(scene_classes()) if i % 3 == 1}
figures.neutral_prompts(
    recorded, {"color by chance": "bias@captions", "color tied to class": "bias@biased"}, bare, label="Figure 6.6",
    caption="Bare names, every third of the sixteen, as drawn by a pair that saw each class in every color, and by one that saw it nearly always in the "
    "color in brackets. Below each picture, what a network that took no part reads in it. The first of four starts.",
    alt="Pictures of five bare names, drawn by two pairs.",
)

# %% tags=["hide-input"]
figures.twins_table(
    recorded, "bias", {"leaked": "has the color tied to its class", "shape_read": "shape is read"},
    {"color by chance in training": "captions", "color tied to the class": "biased"},
    caption="share of pictures of a bare name in which another network reads so: the mean over three pairs and its 95% interval over pairs; sixteen names, four starts each. "
    f"A color at random would be the tied one in {1 / len(COLORS):.0%}",
)

# %% [markdown]
# It comes out. Most pictures of the pairs that learned the tie have the color of their class, which nobody asked for; of the others' no more than chance has
# it. And they show the shape less often: where the color says what it is, a pair need not look at the shape, and has less of it to draw.
#
# ## Does it read the order of words?
#
# "A star left of a ring" and "a ring left of a star" have the same words. Each sentence below is true of one of two pictures, of which one is the
# other's mirror image. Choose, then look.

# %% tags=["hide-input"]
beside = directed(scenes.table) & (scenes.table.relation <= 2) & (scenes.table.relation >= 1)  # left of, right of
rows_of = beside.nonzero()[:3, 0]
some, quiz, right = scenes[rows_of], [], []
for i in range(len(rows_of)):
    x = some.images[i]
    quiz.append((x, x.flip(-1)) if i % 2 == 0 else (x.flip(-1), x))
    right.append(i % 2)
sentences = captions(some.table, "full")
with torch.no_grad():
    near = torch.stack([clip.similarity(torch.stack(pair), [sentence])[:, 0] for pair, sentence in zip(quiz, sentences, strict=True)])
figures.order_quiz(
    quiz, sentences, near.cpu(), torch.tensor(right), label="Figure 6.7",
    caption="Which picture does the sentence belong to? The first scenes of the test images whose objects stand side by side.",
)

# %% [markdown]
# Over many scenes: how often does the true caption lie nearer to its picture than the same caption with the two objects exchanged? Half is guessing.

# %% tags=["hide-input"]
order, relation = reads_order(clip, scenes), scenes.table.relation[directed(scenes.table)]
asked = {called: order[relation == RELATIONS.index(called)] for called in ("left of", "right of", "above", "below", "inside")}
within = scenes[scenes.table.relation == RELATIONS.index("inside")]
control = {"inside, of another scene's picture": reads_order(clip, within, images=within.images.roll(1, 0))}
figures.shares_table({**asked, "all": order, **control}, ("relation", "true caption nearer (95%)", "scenes"), caption="one pair; intervals over scenes, by Wilson")

# %% [markdown]
# Of two things beside each other it can hardly tell which is left or above. Which lies *inside* the other it reads nearly always, and it reads it in the order of the words: a small
# star on a large ring looks unlike a small ring on a large star, wherever they are. (The sentence alone does not give it away: asked about another scene's picture, as the last row
# says, the pair is far less sure of it.) "Left of" asks more. One has to know which is which, and where each is.
#
# Sentences with their objects exchanged, as wrong answers near by, are a remedy that has been reported {cite:p}`yuksekgonul2023bags`. Three pairs were trained with them:

# %%
with_them, without = (recorded.mean("order", f"order@{on}") for on in ("exchanged", "captions"))
inside, beside, alike = (recorded.mean(measure, "order@exchanged").value for measure in ("order_inside", "order_beside", "captions_alike"))
print(f"recorded, three pairs each: {with_them.value:.1%} ({with_them.low:.1%} to {with_them.high:.1%}) of the true captions nearer, {without.value:.1%} "
      f"({without.low:.1%} to {without.high:.1%}) of pairs without; {inside:.0%} of those with one thing inside the other, {beside:.0%} of the rest; "
      f"cosine of a caption and the exchanged one {alike:.2f}")

# %% [markdown]
# They did not help here. To the text towers the two sentences still point nearly the same way. It takes two things and a caption that says all for a scene to have such a wrong
# answer, and a pair that does not tell it from the right one loses little.
#
# ## Does language make robust?
#
# CLIPs are called robust, for their accuracy falls less when pictures are of another kind {cite:p}`radford2021clip`. That is not robustness against someone who
# means harm. Here two twins are attacked at what they can do: the one taught the class by labels says which of sixteen shapes it sees, the one taught by captions
# which of eleven colors, in scenes of one object.

# %%
alone = scenes[single][: P.attacked]
subjects = {
    "taught by labels, asked for shapes": (labels, alone.labels),
    "taught by captions, asked for colors": (zero_shot(clip, scene_classes([f"{color} shape" for color in COLORS])), alone.table.color[:, 0]),
}
kept = {called: {} for called in subjects}
for called, (model, y) in subjects.items():
    for eps in P.radii:
        attack = {"PGD-10": partial(attacks.pgd, eps=eps, steps=10)}
        right = robust_accuracy(model, (alone.images, y), attack, eps=eps, seed=session.seed, progress=False).worst if eps else correct(model, (alone.images, y))
        kept[called][eps] = right.double().mean().item()

# %% tags=["hide-input"]
figures.attacks_figure(
    kept, label="Figure 6.8",
    caption=f"Right answers of both twins on {P.attacked} scenes of one object under PGD with ten steps, by the largest change of a pixel.",
)

# %% [markdown]
# Both lose right answers to changes that nobody sees, shapes faster than colors: a color fills many pixels, and an edge is a few. Which of the two teachers leaves a network more
# fragile cannot be read off here, for the questions differ. So twins were asked for the same shapes, at that of six radii at which, on other scenes, the one taught by labels keeps
# nearest to 40%:

# %% tags=["hide-input"]
figures.twins_table(
    recorded, "robust", {"N": "right", "R": "right under attack"}, {called: teacher for called, teacher in FOUR.items() if teacher != "attributes"},
    caption=f"recorded: shapes, {recorded.settings('robust@labels')['attacked']} scenes; the mean over three twins and its 95% interval; PGD with 20 steps",
)

# %% [markdown]
# The pair that was told the class alone names shapes as well as the twin of labels, and loses them as easily. Language by itself protects from nothing. The pair that was told all names
# fewer shapes to begin with, and keeps fewer.
#
# What words make of a pair is a classifier like any other, so it can be certified like any other: let it vote over noisy copies of an image
# ([chapter 2](02_certificates.ipynb)), and within a radius, with a confidence of $1 - \alpha$, no change turns the vote.

# %%
SIGMA, RADII = 0.12, (0.1, 0.2)  # noise, and distances in ℓ₂, of pixels in [0, 1]
certified = {}
for called, (model, y) in subjects.items():
    votes = certification.certify(model, alone.images[:20], sigma=SIGMA, n=300, seed=session.seed, progress=False)
    right = votes.labels == y[:20].cpu()
    certified |= {f"{called}: {f'right within {r}' if r else 'right'}": right & (votes.radii >= r) for r in (0, *RADII)}
figures.shares_table(certified, (str(votes.budget), "share (95%)", "scenes"), caption="one network each; intervals over scenes, by Wilson")

# %% [markdown]
# Both see through that much noise, which both met in training, and most of what they get right is certified within a small radius. Smoothing defends a classifier that
# words made as it does any other.
#
# ## Words on pictures
#
# CLIPs trained on the web read, and a word laid over an object can take its place {cite:p}`goh2021multimodal`. Is that due to language? Two more twins were trained on
# scenes of which half have a word written on them, mostly the right one: one pair by captions, one network by labels. Then each is shown scenes with a wrong word.

# %% tags=["hide-input"]
WRITTEN = {"captions": "words@named-captions", "labels": "words@named-labels"}
figures.false_words(
    recorded, WRITTEN, label="Figure 6.9",
    caption="The first six scenes they were asked about, each with the name of another class written on it. Below, what each twin answers without the word → with it.",
)

# %% tags=["hide-input"]
figures.twins_table(
    recorded, "words", {"right": "right without a word", "flips": "the word takes over", "harmed": "wrong with the word"},
    {"taught by captions": "named-captions", "taught by labels": "named-labels"},
    caption=f"share of {recorded.settings('words@named-labels')['images']:,} scenes, the mean over three twins and its 95% interval over twins; the last two are of all scenes: right "
    "without the word, and then the word's class, or any wrong one",
)

# %% [markdown]
# Both learned to read, for it paid: half of the scenes that they were trained on had a word, nearly always the right one. A wrong one takes a good part of their right answers away. And the twin
# taught by labels follows it more often, not less. (Of what they had right, though, the word spoils a larger share for the twins taught by captions.) Labels ask for the class and nothing else, and the word on the picture says it. Here, then, reading is not an effect of language. It is
# what a shortcut in the images does to anyone who may take it.
#
# ## What the thesis claims, and what we measured
#
# The rules were fixed before anything was measured. They speak of a kind of network, and one pair decides nothing: they are judged on three twins of each kind,
# which began with other weights and saw other scenes.

# %% tags=["hide-input"]
claims_table("clip")

# %% tags=["nbval-check-output", "hide-cell"]
for line in claims_table("clip").verdict_lines():
    print(line)

# %% [markdown]
# ## Since the thesis
#
# **Order.** Vision–language models take sentences much as bags of words: exchange who does what, and many hardly notice. Captions with the words exchanged as wrong
# answers in training mend part of it {cite:p}`yuksekgonul2023bags`; in our small pairs they did not.
#
# **Names for units.** Naming by text has become a method of its own, scored by how often the names of the last layer are the labels {cite:p}`oikarinen2023dissect`. What the
# names of other layers are worth needs a world where the truth is known.
#
# **Directions instead of units.** Sparse autoencoders find directions in CLIP's features that are easier to name than its units {cite:p}`pach2025`.
#
# ## The chapter's answer, in three sentences
#
# What a network is told decides more than the form in which it is told: where that is the class alone, sentences leave the same features and units as labels, and where color is told,
# color is kept and units for it come, by either. But not all that is told is kept, as the pair's background, and some is kept untold, as number. What language adds is the way to ask: with
# any sentence of its words, for a picture in which others read the color and sometimes the shape, and for classes that are made of words afterwards.
#
# ## Exercises
#
# **1. Two differences.** The thesis compares a CLIP with a network trained on ImageNet's labels. Suppose that its units for themes and crowds are real, and missing in the other. What of it
# would be due to language?
#
# :::{admonition} Solution
# :class: dropdown
# One cannot say: the two differ in their images, in how much their teachers say, and in language. Change one at a time. In Figure 6.2, columns 1 and 2 differ in language
# (and in the loss that goes with it), 2 and 4 in how much was told. Columns 3 and 4 differ in both: labels tell all of every scene, captions of half.
# :::
#
# **2. Names that always fit.** `name_by_text` takes off the logarithm of each word's mean over all scenes. What would the names be without it?
#
# :::{admonition} Solution
# :class: dropdown
# Every unit would be called by the words that fit most scenes, whatever excites it.
# :::
#
# **3. A published CLIP.** `thesis-kit invert --clip ViT-B-16 --tag openai --prompt "a red star"` draws a real one's star, with a network connection and better with a GPU.
# [What does my CLIP see?](85_what_your_clip_sees.ipynb) goes on from there.
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
