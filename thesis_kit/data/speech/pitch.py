"""The fundamental frequency of speech by autocorrelation, frame by frame.

A frame is voiced where the normalized autocorrelation has a high peak at a lag of the voice's range; the lag of the
first peak that is nearly as high as the highest is the period, so that a multiple of it is not taken instead.
"""

from __future__ import annotations

import numpy as np

LOWEST, HIGHEST = 50.0, 500.0  # Hz
_FRAME, _HOP = 0.04, 0.01  # seconds
_VOICED, _NEARLY = 0.5, 0.85  # of the autocorrelation's peak: to count as voiced, and to be taken before a higher one
_QUIET = 0.02  # of the loudest frame's amplitude


def pitch_track(waveform: np.ndarray, rate: int) -> np.ndarray:
    """F0 in Hz of every frame of 40 ms, one each 10 ms; NaN where a frame is not voiced.

    Args:
        waveform: samples (t,). rate: samples a second.

    Examples:
        >>> tone = torch.sin(2 * torch.pi * 200 * torch.arange(16_000) / 16_000).numpy()
        >>> tk.data.speech.pitch_track(tone, 16_000).round()[:3].tolist()
        [200.0, 200.0, 200.0]
    """
    waveform = np.asarray(waveform, dtype=np.float64)
    length, hop = round(_FRAME * rate), round(_HOP * rate)
    if len(waveform) < length:
        return np.full(0, np.nan)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, length)[::hop]  # (n, length)
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(frames, n=2 * length, axis=1)) ** 2
    correlation = np.fft.irfft(power, axis=1)[:, :length]  # (n, lags)
    squares = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(frames**2, axis=1)], axis=1)  # (n, length + 1)
    lags = np.arange(length)
    energies = squares[:, length - lags] * (squares[:, -1:] - squares[:, lags])  # of the two overlapping parts
    normalized = correlation / np.sqrt(np.maximum(energies, 1e-12))
    loud = np.sqrt((frames**2).mean(axis=1))
    first, last = int(rate / HIGHEST), min(int(rate / LOWEST), length - 2)
    periods = np.array([_period(row, first, last) for row in normalized])
    periods[loud < max(_QUIET * loud.max(initial=0.0), 1e-6)] = np.nan
    return rate / periods


def _period(correlation: np.ndarray, first: int, last: int) -> float:
    """The period in samples, between samples by a parabola; NaN without a peak."""
    before, inner, after = (correlation[first + by : last + 1 + by] for by in (-1, 0, 1))
    peaks = first + np.flatnonzero((inner >= before) & (inner > after))
    peaks = peaks[correlation[peaks] >= _VOICED]
    if not len(peaks):
        return np.nan
    at = peaks[correlation[peaks] >= _NEARLY * correlation[peaks].max()][0]
    left, middle, right = correlation[at - 1 : at + 2]
    return at + 0.5 * (left - right) / (left - 2 * middle + right)


def median_pitch(waveform: np.ndarray, rate: int) -> float:
    """The median F0 in Hz over the voiced frames; NaN where there is none.

    Examples:
        >>> tone = torch.sin(2 * torch.pi * 200 * torch.arange(16_000) / 16_000).numpy()
        >>> round(tk.data.speech.median_pitch(tone, 16_000))
        200
    """
    track = pitch_track(waveform, rate)
    return float(np.nanmedian(track)) if np.isfinite(track).any() else float("nan")
