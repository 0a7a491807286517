# %% [markdown]
# # How to listen to your own recognizer
#
# **You have a network that takes in sound. You would like to hear what its units answer to, and what its layers keep of a recording.**
#
# Change a sound until a unit is excited, or until a layer takes it for your recording, and listen to it. Why that works, and what
# to believe of it, is the subject of [the chapter on sonification](07_sonification.ipynb).
#
# :::{admonition} What you need
# :class: tip
# - Your model as a `torch.nn.Module` from waveforms, a float tensor (n, t) in [−1, 1] at 16 kHz, to anything. The spectrum is part of the
#   model, and computed by torch, so that gradients reach the samples.
# - A recording of a few seconds: WAV, FLAC, OGG or MP3.
#
# The notebook runs in about half a minute on two CPU cores.
# :::

# %% [setup]

# %% [markdown]
# ## Two commands
#
# For a recognizer of [the zoo](zoo.md) nothing needs to be written. `whisper-tiny.en` comes with the extra `real`, `jasper-speech` with the package:
#
# ```bash
# thesis-kit sonify --model whisper-tiny.en --layer blocks.3.hidden --units 7
# thesis-kit listen clip.wav --model jasper-speech
# ```
#
# The first makes a second of sound that excites a unit and writes it into the folder `sounds`, with its spectrum as a picture and
# a JSON; `--list` shows what can be named as a layer. The second writes a sound for every layer into `heard`: what that layer
# takes for your clip. Both say what they wrote. Without `--model` it is Whisper that is asked. On a laptop the first takes a
# quarter of a minute and the second a minute or more.
#
# ## Your own network
#
# Here it is a small recognizer, taken as if it were yours. Layers go by the names of `named_modules()`; `sonification.layers` lists
# those that follow one another, where the network has a residual stream or says itself.

# %%
import torch

from thesis_kit import sonification
from thesis_kit.chapters.sonification import figures
from thesis_kit.data import speech
from thesis_kit.show.tables import table

model = tk.zoo.load("jasper-speech", device=session.device)
print(sonification.layers(model))

# %% [markdown]
# ## What do units answer to?
#
# Look at real sounds first. `top_segments` ranks phones or words of clips whose times are known, and synthesized clips bring them along:

# %%
clips = speech.say_all(speech.crossed(speech.WORDS, ("en-us+m4", "en-us+steph"), (50,), (160,)))
UNITS = [0, 42, 127]
best = sonification.top_segments(model, clips, "blocks.2", UNITS, k=3, by="word")
rows = [(f"unit {unit}", ", ".join(f"{one.piece.name} {one.value:.1f}" for one in some)) for unit, some in zip(UNITS, best, strict=True)]
table(rows, ("block 3", "words that excite it most, mean activation"))

# %% [markdown]
# Then make one. All units of a call are optimized together:

# %%
made = sonification.sonify(model, "blocks.2", UNITS, seconds=0.8, steps=60, copies=1)
sounds = {f"unit {unit}": sound for unit, sound in zip(UNITS, made.waveforms, strict=True)}
print([f"{before:.1f} → {after:.1f}" for before, after in zip(made.before, made.after, strict=True)], "read at", made.layer)

# %% tags=["hide-input"]
figures.sounds_in_a_row(sounds, label="Figure 1", caption="Sounds made for three units of block 3. Press one to hear it.")

# %% [markdown]
# `steps=200` and `copies=2`, the defaults, give clearer ones in six times the time. `clips=clips` starts from the piece that excites a unit most rather than
# from noise. Units are read before their nonlinearity where it can be found. If a unit has no gradient at its start, a warning names it.
#
# ## What does a layer keep of a recording?
#
# `speech.from_file("clip.wav")` reads yours, and brings any rate and several channels to one channel at 16 kHz with a note. Here a synthesizer stands in:

# %%
recording = speech.say("good morning", "en-us+steph")
kept = {"the recording": recording.waveform}
for layer in ("prologue", "blocks.1", "epilogue"):
    found = sonification.resynthesize(model, [recording], layer, steps=150)
    kept[f"{layer}, distance {found.distances.item():.2f}"] = found.waveforms[0][0]

# %% tags=["hide-input"]
figures.sounds_in_a_row(kept, label="Figure 2", caption="A recording, and sounds from noise that three layers take for it.")

# %% [markdown]
# The distance is relative: 0.1 says that the states differ by a tenth of their length. If it is much larger, take more steps before you
# conclude that a layer has dropped something.
#
# ## Is it learned?
#
# **Ask the same of random weights.** `tk.features.random_twin(model)` is the same architecture untrained. What its sounds show
# comes from the architecture and the method.
#
# **Ask somebody else.** A network writes down its own sounds too kindly. Have another recognizer, or a person who does not know the answer, say what is heard.
#
# **Measure.** Probes say what can be read off a layer, with words that they were not fitted on:

# %%
asked = speech.say_all(speech.crossed(speech.WORDS[::8], ("en-us+m4", "en-us+steph", "en-gb-x-rp+m2", "en-gb+Andrea"), rates=(160,)))
voices = [clip.voice for clip in asked]
number = {voice: place for place, voice in enumerate(dict.fromkeys(voices))}
labels = torch.tensor([number[voice] for voice in voices])
states = sonification.pooled(model, asked, sonification.layers(model))
rows = [(layer, f"{sonification.probe(x, labels, [clip.text for clip in asked]).score:.0%}",
         f"{sonification.one_shot(x, [clip.text for clip in asked], voices).score:.0%}") for layer, x in states.items()]
table(rows, ("layer", "who speaks (4 voices)", "which word (8 words)"))

# %% [markdown]
# Guessing gets a quarter of the voices and an eighth of the words. So the speaker fades with depth and the words come early, but
# the last layer of this network still tells four voices apart far better than chance. Ask `tk.features.random_twin(model)` the
# same before you call any of it learned.
#
# ## When it goes wrong
#
# Messages say what was seen and what to do:

# %% tags=["nbval-check-output"]
import textwrap

mistakes = {
    "samples of 16 bits": lambda: model((32768 * recording.waveform)[None]),
    "no such unit": lambda: sonification.sonify(model, "blocks.2", [500]),
    "no such layer": lambda: sonification.sonify(model, "block.2", [0]),
    "a recording has no times": lambda: sonification.pieces([speech.from_samples(recording.waveform, 16_000)]),
}
for mistake, call in mistakes.items():
    try:
        call()
    except ValueError as error:
        print(textwrap.fill(f"{mistake}: {error}", 100, subsequent_indent="    "))

# %% [markdown]
# | what you hear | what to try |
# |---|---|
# | a hiss that hardly changes | more steps; is there gradient (the warning)? start from `clips` |
# | clicks | `form="stft"`, the default, has fewer than `form="wave"` |
# | the same from every unit | raise `quiet`, which weighs how loud the sound is |
# | the same from random weights | it comes from the method: nothing was learned that can be heard here |
#
# ## Where to go on
#
# - [The chapter on sonification](07_sonification.ipynb) listens to all layers and measures what they keep.
# - [The package](api.md) lists what `sonification` and `data.speech` have, adapters for LibriSpeech and Speech Commands among it.
# - [How to see what your own network has learned](83_see_your_network.ipynb), for images.
