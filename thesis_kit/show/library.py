"""matplotlib and Pillow as the drawing code takes them: where they are missing, a sentence names the extra."""

from __future__ import annotations

from thesis_kit.extras import needs

mpl, Image = needs("matplotlib"), needs("PIL.Image")
Axes, Axis = needs("matplotlib.axes").Axes, needs("matplotlib.axis").Axis
Figure, Text = needs("matplotlib.figure").Figure, needs("matplotlib.text").Text
Line2D, ticker = needs("matplotlib.lines").Line2D, needs("matplotlib.ticker")
MaxNLocator, NullFormatter, ScalarFormatter = ticker.MaxNLocator, ticker.NullFormatter, ticker.ScalarFormatter
