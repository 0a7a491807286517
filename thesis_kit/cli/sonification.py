"""The command line's ``sonify`` and ``listen``: sounds that excite units, and what layers keep of a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thesis_kit import __version__
from thesis_kit.cli.numbered import numbers
from thesis_kit.cli.pages import out as console
from thesis_kit.cli.stopping import kept
from thesis_kit.cli.subjects import Seed
from thesis_kit.files import only_writer, write_together

if TYPE_CHECKING:
    from torch import Tensor, nn

Member = Annotated[
    str,
    typer.Option(
        help="A network of the zoo that hears: whisper-tiny.en, jasper-speech, resemblyzer; or one of torchaudio's, "
        "such as WAV2VEC2_ASR_BASE_960H."
    ),
]
_HEARING = ("speech recognizer", "speaker encoder")  # kinds of members
Steps = Annotated[int, typer.Option(min=1, help="Steps of the optimization.")]
Form = Annotated[str, typer.Option(help="What is optimized: stft (short-time spectra) or wave (samples).")]
Out = Annotated[Path, typer.Option(help="Folder for the sounds, their spectra and a JSON.")]


def sonify(
    layer: Annotated[str, typer.Option(help="A site, such as blocks.3.hidden, or a layer; --list shows them.")] = "",
    units: Annotated[str, typer.Option("--units", "--unit", help="Numbers or ranges: 0,3,8-11.")] = "0",
    model: Member = "whisper-tiny.en", seconds: Annotated[float, typer.Option(help="Length of the sounds.")] = 1.0,
    steps: Steps = 200, form: Form = "stft", out: Out = Path("sounds"), seed: Seed = 0,
    listed: Annotated[bool, typer.Option("--list", help="Show what can be named as --layer, and end.")] = False,
) -> None:  # fmt: skip
    """Make the sounds that excite units of a recognizer most, and write them as WAV with spectra and numbers."""
    network = _recognizer(model)
    if listed:
        from thesis_kit import recording

        console.print(str(recording.sites(network)), markup=False, highlight=False)
        return
    if not layer:
        raise ValueError("there is no layer: give --layer, such as blocks.3.hidden; --list shows what there is")
    from thesis_kit import sonification

    chosen = numbers(units)
    beside = out / "sounds.json"
    with kept("nothing was kept: the same command begins anew"), only_writer(beside):
        found = sonification.sonify(network, layer, chosen, seconds=seconds, steps=steps, form=form, seed=seed)
        means = zip(chosen, found.before.tolist(), found.after.tolist(), strict=True)
        rows = [{"unit": number, "file": f"unit-{number}.wav", "before": before, "after": after}
                for number, before, after in means]  # fmt: skip
        record = {"layer": layer, "read at": found.layer, "steps": steps, "form": form, "seed": seed, "sounds": rows,
                  "seconds": round(found.seconds, 1)}  # fmt: skip
        titles = [f"unit {number} of {layer}" for number in chosen]
        _write(out, beside, model, network, found.waveforms, rows, titles, record)
    for row in rows:
        console.print(f"unit {row['unit']}: {row['before']:.3g} at first, {row['after']:.3g} in {row['file']}")


def listen(
    clip: Annotated[Path, typer.Argument(help="A recording: WAV, FLAC, OGG or MP3, of a few seconds.")],
    model: Member = "whisper-tiny.en", steps: Steps = 200, form: Form = "stft", out: Out = Path("heard"),
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Hear what each layer of a recognizer keeps of a recording: sounds from noise that a layer takes for it."""
    from thesis_kit import sonification
    from thesis_kit.data.speech import from_file, median_pitch

    recording, network = from_file(clip), _recognizer(model)
    beside = out / "heard.json"
    waveforms, rows = [recording.waveform], [{"layer": "recording", "file": "recording.wav", "distance": 0.0}]
    with kept("nothing was kept: the same command begins anew"), only_writer(beside):
        for number, layer in enumerate(sonification.layers(network)):
            found = sonification.resynthesize(network, [recording], layer, steps=steps, seeds=[seed], form=form)
            waveforms.append(found.waveforms[0][0])
            rows.append({"layer": layer, "file": f"{number}-{layer}.wav", "distance": found.distances.item()})
        for row, waveform in zip(rows, waveforms, strict=True):
            pitch = median_pitch(waveform.numpy(), 16_000)
            row["pitch"] = None if pitch != pitch else round(pitch, 1)
            row |= _letters(network, waveform)
        record = {"recording": clip.name, "steps": steps, "form": form, "seed": seed, "sounds": rows}
        _write(out, beside, model, network, waveforms, rows, [row["layer"] for row in rows], record)
    for row in rows:
        said = f", {row['heard']!r}" if "heard" in row else ""
        pitch = "no pitch" if row["pitch"] is None else f"pitch {row['pitch']:.0f} Hz"
        console.print(f"{row['layer']:12} distance {row['distance']:.2f}, {pitch}{said}")


def _recognizer(name: str) -> nn.Module:
    """A network that hears: of the zoo, or one of torchaudio's by its name.

    Raises:
        ValueError: a member of another kind. UnknownName: nothing has this name; near names are offered.
    """
    import torch

    from thesis_kit.checks import choose
    from thesis_kit.models import zoo

    device = "cuda" if torch.cuda.is_available() else "cpu"
    known = [one for one in zoo.names() if zoo.entry(one).kind in _HEARING]
    if name in zoo.names() and name not in known:
        raise ValueError(f"{name} does not hear: name a recognizer, such as {' or '.join(known)}")
    if name in known:
        return zoo.load(name, device=device)
    from thesis_kit.models.speech import from_torchaudio

    return from_torchaudio(choose(name, [*known, *_of_torchaudio()], "recognizer")).to(device)


def _of_torchaudio() -> list[str]:
    """Names of torchaudio's networks; none where it is not installed."""
    from thesis_kit.extras import MissingPackage
    from thesis_kit.models.speech import torchaudio_names

    try:
        return list(torchaudio_names())
    except MissingPackage:
        return []


def _letters(network: nn.Module, waveform: Tensor) -> dict[str, str]:
    """What a recognizer of letters writes down; nothing of one that has none."""
    if not hasattr(network, "tokens"):
        return {}
    from thesis_kit.models.speech import transcribe

    return {"heard": transcribe(network, waveform[None].to(next(network.parameters()).device))[0]}


def _write(
    out: Path, beside: Path, model: str, network: nn.Module, waveforms: Any, rows: list[dict], titles: list[str],
    record: dict[str, Any],
) -> None:  # fmt: skip
    from thesis_kit.identity import fingerprint
    from thesis_kit.show.sounds import spectrograms, wav
    from thesis_kit.sonification import playable

    told = {"model": model, "weights": fingerprint(network), "version": __version__, **record}
    files = {out / row["file"]: wav(playable(waveform)) for row, waveform in zip(rows, waveforms, strict=True)}
    write_together({beside: (json.dumps(told, indent=1) + "\n").encode(), **files,
                    out / "spectra.png": spectrograms(list(waveforms), titles)})  # fmt: skip
    made = "1 sound" if len(files) == 1 else f"{len(files)} sounds"
    console.print(f"{made}, spectra.png and {beside.name} in {out}")
