# %% [markdown]
# # What a speech recognizer hears
#
# **The question of this chapter: what does a speech recognizer *hear*, layer by layer?**
#
# Between a sound and the words that are written down for it lie layers of *units*, numbers that go up for some sounds and down
# for others. Ask for the sound that drives a unit up, and the unit can be *heard*. Below, move the slider from the first layer
# to the last and press the pictures: to our ears, ticks and hisses turn into pieces of words.

# %% [setup]

# %% tags=["hide-input"]
from thesis_kit import sonification, zoo
from thesis_kit.chapters.sonification import figures, live
from thesis_kit.chapters.sonification.world import untaught
from thesis_kit.data import speech
from thesis_kit.ledger import results
from thesis_kit.show.tables import table
from thesis_kit.show.verdicts import claims_table

network = zoo.load("jasper-speech", device=session.device)
untrained = untaught("jasper-speech", 0).to(session.device)
NAMES = {"front": "the spectrum", "prologue": "the first convolution", "blocks.0": "block 1", "blocks.1": "block 2",
         "blocks.2": "block 3", "epilogue": "the last convolution"}
LAYERS = list(NAMES)[1:]
clips = live.spoken_words()
mapped = live.sonic_layers(network, untrained, clips, LAYERS, each=4, controls=2, steps=60)
figures.sonic_map(
    mapped, NAMES, label="Figure 7.1", start=3,
    caption="Units of a small speech recognizer, evenly spaced in each layer, none picked. Each has three sounds: the phone that excites "
    "it most with a little of what is around it, the word that does, and a sound made from noise to excite it, with what the "
    "recognizer writes for that one. In brackets: how many of its five strongest are the same. Pictures show time to the right and "
    "frequency upwards. Press one to hear it; the slider moves with the mouse, a finger, or the arrow keys.",
)

# %% [markdown]
# The network is a small one after Jasper {cite:p}`li2019jasper`, the recognizer that the thesis listened to
# {cite:p}`ghiasi2021sonification,ghiasi2022thesis`. The article says four things, and shows them by ear. Shallow units answer to
# simple sounds and *phones*, the sounds that words are made of; deep ones to words and parts of words. Shallow layers keep how
# somebody speaks, such as the pitch; deep layers drop it and keep what is said. How its sounds were made was not published, and
# it gives no numbers. **So both the ways to make sounds and the numbers are ours.**
#
# :::{admonition} What you will hear, and how long it takes
# :class: tip
# - units from the first layer to the last, and units that have learned nothing;
# - one word by two voices, as every layer holds it, until the voices are gone;
# - a bar that turns the pitch up and down, and which layers notice;
# - what can be read off each layer, here and in Whisper, a recognizer that everyone uses;
# - a sound in which you hear one word and the network another.
#
# Reading and listening take about 20 minutes; running the notebook takes one to three on two CPU cores. **What is made live here is made
# for one network of each kind**, and shows what an effect is like. Whether it is so for recognizers of this kind, the ledger at
# the end decides with six.
# :::
#
# ## Speech of which everything is known
#
# A recording does not say when each phone begins, or what the same words would have been like a fifth higher. A synthesizer does.
# Every clip here is spoken by eSpeak NG, by 18 voices, with the times of words and phones and a pitch that is set:

# %%
shown = speech.say("good morning", "en-us+m4")
print([f"{figures.phone(phone.name)} {phone.start:.2f}–{phone.end:.2f} s" for phone in shown.phones if phone.name[0] != "_"])
print(f"pitch {shown.f0:.0f} Hz, measured")

# %% tags=["hide-input"]
figures.sounds_in_a_row(
    {f"{semitones:+g} semitones" if semitones else "as it is": clip.waveform for semitones in (-4, 0, 4)
     for clip in sonification.edited([shown], semitones=semitones)},
    label="Figure 7.2", caption="“Good morning” by one voice at three pitches, and all else equal. The stripes are the harmonics of the voice: "
    "higher and wider apart for a higher pitch.",
)

# %% [markdown]
# The network hears 64 such words in phrases of up to three, by twelve of the voices, and learns to write their letters. By voices that it
# has never heard it gets all but a few words right; [its page in the zoo](zoo.md) has the number.
#
# ## Which sounds excite a unit?
#
# The article ranks pieces of real speech, cut at the times of phones and words, by a unit's mean activation in each. That is
# `sonification.top_segments`, and the first two sounds of every unit in Figure 7.1. The third is optimized. Let $h_{u}(t)$ be unit
# $u$ at time $t$, before its nonlinearity, so that a unit that is off has a gradient too:
#
# ```{math}
# :label: eq-sound
# x^* \;=\; \arg\max_x \; \frac1T\sum_{t=1}^{T} h_{u}\big(a(x)\big)(t) \;-\; \lambda\, \frac1N \lVert a(x)\rVert^2 .
# ```
#
# $T$ is the number of time steps of the layer and $N$ that of samples of the sound. The mean over time keeps a long sound from winning by its length. Each step, $a$ rolls the sound in time, makes it louder or softer, takes a band
# of frequencies away and adds hiss, so that what excites the unit must survive that; the sound is stored as a short-time
# spectrum. As one call, for any layer of any network from waveforms:

# %%
made = sonification.sonify(network, "blocks.2", [0, 42], seconds=0.8, steps=60, copies=1)
rows = [(unit, f"{before:.1f}", f"{after:.1f}") for unit, before, after in zip(made.units, made.before, made.after, strict=True)]
table(rows, ("unit", "its mean in faint noise", "in the sound made for it"))

# %% [markdown]
# Go back to the map with this in mind. In the first layers the made sounds are hisses, hums and buzzes: the spectrum of a phone,
# held. In block 3 they begin to have syllables. From block 2 on, what the recognizer writes for some of them begins to resemble
# words that excite the unit, though nothing in the objective knows of words. Units with random weights stay with a hum. By the
# letter:

# %%
letters = live.letters_by_layer(mapped)
rows = [(called, *(f"{value:.1f}" for value in line)) for called, line in letters.items()]
table(rows, ("letters written for a sound, mean", *(NAMES[layer] for layer in LAYERS)), caption="four trained units and two untrained ones a layer")

# %% [markdown]
# Two cautions. The listener who writes here is the network itself, and a network believes its own dreams. In the ledger another network
# counts the phones, against random weights. In the sounds of six small networks it finds more of them from deep layers than from shallow ones, though
# fewer than our rule asks for; in Whisper's it finds no more ([*optimal-sounds*](claim-optimal-sounds)).
# And deep units see a fifth of a second and more at once, so their
# sounds *can* be longer. Whether they would be without training, the gray rows of the map tell.
#
# Do shallow units then detect phones, and deep ones words? In six small networks the lead of a unit's best phone over its best word shrinks with depth, and
# by more than with random weights. In Whisper it shrinks as much without training. Whether words are told best at a greater depth than phones, the small
# networks leave open, and Whisper tells both best in one layer ([*phones-then-words*](claim-phones-then-words)).
#
# ## The same word by two voices, from layer to layer
#
# What does a layer still know of a sound? Take its states for a clip, and find another sound, from noise, that gives the same states
# {cite:p}`feather2023metamers`. Whatever the layer has dropped, the new sound is free to have in any other way. The loss is
# the distance $\lVert h(x)-h(x_0)\rVert / \lVert h(x_0)\rVert$ and nothing else.

# %% tags=["hide-input"]
WORD, VOICES = "morning", {"en-us+m4": "a low voice", "en-gb+Andrea": "a high voice"}
spoken = speech.say_all(speech.crossed((WORD,), tuple(VOICES), (50,), (160,)), keep=False)
judge = live.second_recognizer()
held = live.from_layers(network, spoken, list(NAMES), judge, steps=300)
figures.same_word(
    held, list(VOICES.values()), NAMES, label="Figure 7.3",
    caption=f"The word “{WORD}” by two voices, and sounds found from noise that a layer takes for it. Below each: the pitch that is measured, what the "
    "network itself writes, and which of the 64 words Whisper tiny.en says it is, which took no part.",
)

# %%
rows = [(NAMES.get(one.layer, "the clips"), *(f"{distance:.2f}" for distance in one.distances), *one.written,
         *(one.judged or ("not installed",) * 2)) for one in held]
table(rows, ("sounds from", "distance, low", "distance, high", "it writes, low", "it writes, high", "Whisper, low", "Whisper, high"))

# %% [markdown]
# From the spectrum comes the word in its voice, hoarse but with its melody. Deeper, pitch no longer tells the voices apart: there is hardly a tone left to
# measure. The network itself goes on writing the word, for by its own states
# little has changed. Whisper still hears it in sounds from the first layers, and takes most of those from deeper ones for other
# words. People fare no better: such sounds from deep layers are hard or impossible to understand {cite:p}`feather2023metamers`.
# What is the same to a layer need not be the same to anybody else. (This is one word. Of many words, another recognizer still
# names about half in sounds from the small networks' last layer, and hardly any in those from Whisper's:
# [*reconstruct*](claim-reconstruct).)
#
# ## Turn up the pitch
#
# The other way round: change one thing in the sound and watch who notices. The synthesizer says the same words with the same voice, only higher or
# lower, and we ask how far the mean state of each layer moves, in units of how far two clips usually are from one another.

# %% tags=["hide-input"]
asked = speech.say_all(speech.crossed(speech.WORDS[::4], ("en-us+m4", "en-gb-x-rp+m2"), (50,), (160,)))
edits = live.pitch_edits({"trained": network, "random weights": untrained}, asked, (-5, -3, -1, 0, 1, 3, 5), LAYERS)
figures.pitch_bar(
    edits, LAYERS, NAMES, label="Figure 7.4",
    caption=f"{len(asked)} clips of 16 words by two voices, said higher or lower. Bars: how far each layer of the trained network and of one with random weights "
    "moves; 1 is as far as two of the clips usually are from one another. Press the picture to hear one of the words.",
)

# %%
last = edits[-1].changes
rows = [(called, *(f"{value:.2f}" for value in line)) for called, line in last.items()]
table(rows, ("five semitones higher", *(NAMES[layer] for layer in LAYERS)))

# %% [markdown]
# The deeper the layer, the less the trained network notices. In the untrained one it is the other way round. And Whisper? Its hidden units, as recorded:

# %%
heard = results.load_result("sonification.real")
layers = [name.replace(".hidden", "") for name in next(iter(heard.cells["edit@trained"].values()))["chosen"]["layers"]]
rows = [(called, *(f"{value:.2f}" for _, value in next(iter(heard.curves("change", f"edit@{arm}").values()))))
        for called, arm in (("Whisper tiny.en", "trained"), ("random weights", "random"))]
table(rows, ("five semitones higher", *layers))

# %% [markdown]
# They go on noticing, to the end. A pitch that cannot be *read off* by a linear map, as we shall see, can still move many units: to drop
# something and to be deaf to it are two things. The small networks do both ([*edit*](claim-edit)), Whisper only the first.
#
# ## What can be read off a layer
#
# Sounds persuade, and one chooses what to hear in them. So ask a *probe*, a linear map that is fitted to read something off a
# layer's mean state: the pitch within a voice, who speaks, which word. Every layer gets the same capacity, 48 principal components, and
# how much the probe is regularized is chosen without the items that judge it. Pitch and speaker are read on words that the probe
# was not fitted on; a word is recognized from one example by *another voice*.

# %% tags=["hide-input"]
cohort = results.load_result("sonification.speech")
count = len(cohort.cells["probe@trained"])
recorded = {"the small network" if count == 1 else f"{count} small networks": cohort, "Whisper tiny.en": heard}
curves = {called: {kind: live.recorded_probes(one, f"probe@{kind}") for kind in ("trained", "random")} for called, one in recorded.items()}
figures.probe_curves(
    curves, label="Figure 7.5",
    caption="What a linear probe reads off each layer, from the spectrum (0) to the last, of 2,304 clips: 32 words by 18 voices at four pitches. Gray and "
    "dotted, with the same markers: the same architecture with random weights. Of several networks, the mean.",
)

# %%
for called, one in recorded.items():
    print(f"{called}: {one.provenance()}.")

# %% [markdown]
# The curves cross. With depth words rise, pitch and speaker fall, and the untrained twins show how much of it comes from the architecture:
# nothing of the words, little of the speaker, and about half of the small networks' fall in pitch.
# So it is in six small networks, trained independently, and in Whisper {cite:p}`radford2022whisper`, which was trained by others, on other data, for
# another loss. Whisper does it later: in its first block pitch can be read *better* than from the spectrum, in its last hardly at all.
#
# Is it the task that drops the speaker? [Resemblyzer's encoder](zoo.md) was trained to tell speakers apart {cite:p}`wan2018ge2e`, and the same
# probe reads them off its last layer about as well as off its first, where Whisper loses half of what it had. Whether that network
# loses a little too, these voices and words leave open ([*speaker-net*](claim-speaker-net)).
#
# ## A quiet sound that says something else
#
# If deep layers keep the words and drop the rest, can something that we hardly hear change the words? This is the question of
# [the first half of this book](part1.md), asked of sounds. A targeted attack moves the samples within ±ε against the loss of
# another text, and shrinks ε whenever the network writes it {cite:p}`carlini2018audio`.

# %%
said, wanted = speech.say("morning", "en-us+m4"), "guitar"
attack = sonification.targeted(network, said, wanted)
change = attack.waveform - said.waveform
heard_by_whisper = judge([attack.waveform])[0] if judge else "not installed"
rows = {
    "the network wrote, and writes": f"{said.text}, {attack.heard}", "Whisper says": heard_by_whisper,
    "largest change of a sample": f"{attack.linf:.4f}", "largest sample of the clip": f"{said.waveform.abs().max():.2f}",
    "clip over change": f"{attack.snr:.0f} dB",
}
table(rows)

# %% tags=["hide-input"]
figures.sounds_in_a_row(
    {f"the clip: “{said.text}”": said.waveform, f"attacked: “{attack.heard}”": attack.waveform, "the change alone, amplified": change},
    label="Figure 7.6", caption="A word, the same with a change that makes the network write another one, and the change, made as loud as the others.",
)

# %% tags=["hide-input"]
figures.travel_figure(
    live.travels(network, said, attack.waveform, list(NAMES)), list(NAMES), NAMES, label="Figure 7.7",
    caption="How far the attack moves each layer of the network, relative to the layer's own states, and how far noise of the same power does.",
)

# %% [markdown]
# You hear the first word in both, with some hiss. Whisper does not write what was asked for: the change was made for one network.
# In the spectrum the attack and noise of its power are about as large. The layers drop more and more of the noise and next to
# nothing of the attack, which was made so. What a layer drops cannot be used to fool what comes after it; what it keeps can.
#
# ## What the thesis claims, and what we measured
#
# The rules are fixed, with thresholds. They speak of six networks that were trained independently, each beside its own untrained
# twin, and of Whisper tiny.en as one named network. Twelve of the eighteen voices, and all the words, were in what the six were trained on.

# %% tags=["hide-input"]
claims_table("sonification")

# %% tags=["nbval-check-output", "hide-cell"]
for line in claims_table("sonification").verdict_lines():
    print(line)

# %% [markdown]
# ## Since the thesis
#
# **Probes.** Canonical correlations show that what wav2vec 2.0 keeps changes from layer to layer {cite:p}`pasad2021layer`, and
# over eleven models that phones and words peak in layers that the training objective decides {cite:p}`pasad2022comparative`.
# Networks that are trained *without* transcripts need not drop the speaker at all, and Whisper, fine-tuned to tell speakers
# apart, does so best from its deep layers {cite:p}`stuhlmann2025speaker`. Both point to the task as what drops the voice; our own
# rule leaves that open (*speaker-net*).
#
# **Listening to layers.** A synthesizer trained on each layer of a recognizer lets one hear that the speaker and the noise fade
# {cite:p}`li2020layer`. It came before the thesis, and needs training where Figure 7.3 needs none.
#
# **Naming units.** Audio Network Dissection has a language model name units by the clips that excite them
# {cite:p}`wu2024dissection`. FREUD plays the clips that excite a unit of Whisper {cite:p}`sadov2024freud`, and needs a server.
# AudioSAE looks for better directions than units by sparse codes, in all layers of Whisper and HuBERT; more than half of them come back
# with other seeds {cite:p}`aparin2026audiosae`.
#
# ## Where to go on
#
# [How to listen to your own recognizer](84_listen_to_your_recognizer.ipynb) has the calls for a network and a recording of yours;
# `sonification` is on [its page of the package](api.md).
#
# ## The chapter's answer, in three sentences
#
# The first layers of a recognizer hear hisses, hums and phones, in somebody's voice and at its pitch. The last ones know the word
# and hardly who says it, though what is that word to them is often another to a second recognizer. And it is learning that does
# this: the same layers with random weights let most of it pass, and only of the fall in pitch do they, in small networks, show about half.
#
# ## Exercises
#
# **1. Whose word is it?** In block 3 some made sounds are written down almost as words. Why is that weak evidence that the unit detects words?
#
# :::{admonition} Solution
# :class: dropdown
# The same network makes and reads the sound. What excites a deep unit excites its neighbors, which vote for letters. Ask a network that took no part,
# as Figure 7.3 does, and units with random weights.
# :::
#
# **2. A probe that fails.** A probe reads no pitch off the last layer. Does the layer hold none?
#
# :::{admonition} Solution
# :class: dropdown
# Not off the *mean* over the clip by a *linear* map of 48 components. Pitch could stand in its course over time, or bent. Say what was
# asked, and ask the sounds too: those found from the last layer have no pitch either.
# :::
#
# **3. Your own ears.** [The how-to](84_listen_to_your_recognizer.ipynb) plays what the layers of Whisper keep of a recording of yours. At which layer would your friends no
# longer know that it is you?
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :list: bullet
# ```
