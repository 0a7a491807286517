# %% [markdown]
# # What a speech recognizer hears
#
# **The question of this chapter: what does a speech recognizer *hear*, layer by layer?**
#
# Between a sound and the words that are written down for it there are layers of *units*, numbers that go up for some sounds and down
# for others. Ask for the sound that drives a unit up, and the unit can be *heard*. Below, move the slider from the first layer
# to the last and press the pictures: ticks and hisses become vowels, and then pieces of words.

# %% [setup]

# %% tags=["hide-input"]
from thesis_kit import zoo
from thesis_kit.chapters.sonification import figures, live
from thesis_kit.chapters.sonification.world import untaught
from thesis_kit.show.tables import table
from thesis_kit.show.verdicts import claims_table

network = zoo.load("jasper-speech", device=session.device)
NAMES = {"front": "the spectrum", "prologue": "the first convolution", "blocks.0": "block 1", "blocks.1": "block 2",
         "blocks.2": "block 3", "epilogue": "the last convolution"}
clips = live.spoken_words()
untrained = untaught("jasper-speech", 0).to(session.device)
mapped = live.sonic_layers(network, untrained, clips, list(NAMES)[1:], each=4, controls=2, steps=60)
figures.sonic_map(
    mapped, NAMES, label="Figure 7.1", start=3,
    caption="Units of a small speech recognizer, evenly spaced in each layer, none picked. Each has three sounds: the phone that excites "
    "it most with a little of what is around it, the word that does, and a sound made from noise to excite it, with what the "
    "recognizer writes for that one. In brackets: how many of its five strongest are the same. Pictures show time to the right and pitch upwards. "
    "Press one to hear it.",
)

# %% [markdown]
# The network is a small one after Jasper {cite:p}`li2019jasper`, the recognizer that the thesis listened to
# {cite:p}`ghiasi2021sonification,ghiasi2022thesis`. It was trained on words spoken by a synthesizer and writes 64 of them. What the
# article says, and shows by ear: shallow units answer to simple sounds and *phones*, deep ones to words and parts of words; and
# shallow layers keep how somebody speaks, such as the pitch, while deep ones drop it and keep what is said. How its sounds were made
# was not published, and it gives no numbers. The ways to make sounds here are ours, and so are the numbers.
#
# **Every number on this page is of one network of each kind.** The claims at the end are about six.

# %%
letters = live.letters_by_layer(mapped)
rows = [(called, *(f"{value:.1f}" for value in line)) for called, line in letters.items()]
table(rows, ("letters written for a made sound", *list(NAMES.values())[1:]))

# %% [markdown]
# ## What the thesis claims, and what we measured
#
# The rules are fixed, with thresholds. They speak of six networks that were trained independently, and of Whisper.

# %% tags=["hide-input"]
claims_table("sonification")

# %% tags=["nbval-check-output", "hide-cell"]
for line in claims_table("sonification").verdict_lines():
    print(line)

# %% [markdown]
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
