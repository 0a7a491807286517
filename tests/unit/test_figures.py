"""What a notebook shows carries words for everybody, and its slider works without a kernel."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from thesis_kit.show.figures import COLORS, canvas, card, picture, present, style
from thesis_kit.show.live_text import text_box
from thesis_kit.show.pictures import image_uri
from thesis_kit.show.players import in_script, slider
from thesis_kit.show.shown import Shown

NASTY = 'a < b & "c" </script><b>'


class Elements(HTMLParser):
    """All start tags with their attributes, and whether every tag is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.open, self.text, self.script = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data
        else:
            self.text.append(data)

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def drawing(level: float = 0.5):
    with style():
        figure, axis = canvas(size=(2, 1))
        axis.plot([0, 1], [0, level])
    return figure


def decoded(uri: str) -> Image.Image:
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/webp"
    return Image.open(io.BytesIO(base64.b64decode(data)))


# Figures


def svg_of(image: dict) -> str:
    kind, _, data = image["src"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    return base64.b64decode(data).decode()


def test_a_shown_figure_is_a_card_with_two_pictures_label_caption_and_words():
    shown = present(drawing(), label="Figure 1.2", caption="Cost buys robustness.", alt="A line that rises.")
    elements = Elements(shown._repr_html_())
    assert elements.open == []
    wide, narrow = elements.all("img")
    assert (wide["class"], narrow["class"]) == ("tk-wide", "tk-narrow")
    assert wide["alt"] == narrow["alt"] == "A line that rises."
    assert "display:block" in wide["style"]
    assert "display:none" in narrow["style"]  # where no style sheet says which fits, one is enough
    assert 'viewBox="0 0 144 72"' in svg_of(wide)
    assert 'viewBox="0 0 340 72"' in svg_of(narrow)
    assert "background:#fff" in elements.all("figure")[0]["style"]
    assert "".join(elements.text) == "Figure 1.2. Cost buys robustness."
    assert repr(shown) == shown.text == "Figure 1.2. Cost buys robustness."


def test_words_are_escaped():
    elements = Elements(present(drawing(), label="Figure 1.2", caption=NASTY, alt=NASTY).html)
    assert elements.open == []
    assert elements.all("img")[0]["alt"] == NASTY
    assert "".join(elements.text) == f"Figure 1.2. {NASTY}"
    assert elements.all("b") == elements.all("script") == []


@pytest.mark.parametrize("markup", ["*so*", "**so**", "`so`", "$x$", "[so](there)"])
def test_markup_that_nobody_reads_is_refused(markup):
    with pytest.raises(ValueError, match=r"a caption shows '.*' as it stands: write it without markup"):
        present(drawing(), label="Figure 1.2", caption=f"It is {markup}.", alt="A line.")
    with style():
        figure, axis = canvas()
        axis.set_xlabel(f"how {markup}")
    with pytest.raises(ValueError, match="a plot shows"):
        present(figure, label="Figure 1.2", caption="It is.", alt="A line.")


def test_stars_and_dollars_that_are_no_markup_stay():
    caption = "2 * 3 * 4 steps cost $5; see the plus (+)."
    assert caption in present(drawing(), label="Figure 1.2", caption=caption, alt="A line.").text


@pytest.mark.parametrize("label", ["Table 1", "Figure", "figure 1.2", "Figure 1.2.", NASTY])
def test_a_label_is_a_number_that_a_mention_can_find(label):
    with pytest.raises(ValueError, match=r"as in 'Figure 1\.2', got"):
        card("<p>inside</p>", label=label, caption="Numbers.")


@pytest.mark.parametrize(("name", "end", "said"), [("distance (ε)", 0.48, "0.48"), ("accuracy (%)", 1.02, "1.02")])
def test_an_axis_counts_in_the_unit_it_names(name, end, said):
    with style():
        figure, axis = canvas()
        axis.set_xlim(0, end), axis.set_xlabel(name)
    with pytest.raises(ValueError, match=rf"the axis .* spans {said}, too little for its unit"):
        present(figure, label="Figure 1.2", caption="It is.", alt="A line.")
    axis.set_xlim(0, 100 * end)
    assert present(figure, label="Figure 1.2", caption="It is.", alt="A line.").html


@pytest.mark.parametrize("missing", ["caption", "alt"])
@pytest.mark.parametrize("words", ["", "  \n"])
def test_a_figure_without_words_is_refused(missing, words):
    texts = {"caption": "Something.", "alt": "Something.", missing: words}
    with pytest.raises(ValueError, match=f"a figure needs its {missing}: write one sentence that says what it shows"):
        present(drawing(), label="Figure 1.1", **texts)


@pytest.mark.parametrize("broken", [False, True])
def test_matplotlib_settings_come_back(broken):
    before = dict(mpl.rcParams)
    try:
        with style():
            assert mpl.rcParams["figure.facecolor"] == "white"
            assert dict(mpl.rcParams) != before
            if broken:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    present(drawing(), label="Figure 1", caption="c", alt="a")
    assert dict(mpl.rcParams) == before


def test_figures_stay_out_of_pyplots_registry():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure, axes = canvas(2, 3)
    picture(figure)
    assert axes.shape == (2, 3)
    assert plt.get_fignums() == before


def test_pictures_are_lossless_and_the_same_every_time():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decoded(image_uri(Image.fromarray(pixels)))), pixels)
    assert picture(drawing()) == picture(drawing())
    assert decoded(picture(drawing(), dpi=50)).size == (100, 50)


def test_colors_are_told_apart_in_gray_too():
    """The three used side by side most differ in lightness, for who sees no color at all."""
    light = [np.dot(mpl.colors.to_rgb(COLORS[name]), [0.2126, 0.7152, 0.0722]) for name in ("blue", "orange", "gray")]
    assert min(abs(a - b) for i, a in enumerate(light) for b in light[:i]) > 0.04
    assert len(set(COLORS.values())) == len(COLORS)


def test_a_card_is_closed_whatever_is_inside():
    assert Elements(card("<p>inside</p>", label="Figure 1.1", caption="Numbers.")).open == []


# The slider


def some_slider(values=(0.0, 0.1, 0.3), start=1, **words):
    def render(value):
        return drawing(value), f"radius {value:g}: {NASTY}"

    words = {"name": "radius", "label": "Figure 1.1", "caption": "A digit.", "alt": "A digit under attack.", **words}
    return slider(render, values, start=start, **words)


def test_all_pictures_are_there_before_any_script_runs_and_one_is_seen():
    elements = Elements(some_slider().html)
    images = elements.all("img")
    assert len({image["src"] for image in images}) == 6  # each for a desktop and for a phone
    frames = [frame for frame in elements.all("div") if frame.get("class") == "tk-frame"]
    assert ["display:block" in frame["style"] for frame in frames] == [False, True, False]
    for value, image in zip((0, 0, 0.1, 0.1, 0.3, 0.3), images, strict=True):
        assert image["alt"] == f"A digit under attack. radius {value:g}: {NASTY}"
    (control,) = elements.all("input")
    assert (control["type"], control["min"], control["max"], control["value"]) == ("range", "0", "2", "1")
    assert control["aria-label"] == "radius"
    assert elements.all("output")[0]["aria-live"] == "polite"
    assert f"radius 0.1: {NASTY}" in "".join(elements.text)
    assert elements.open == []


@pytest.mark.parametrize("text", ["<!--<script>", "</script>", "]]>", "&lt;", "{name}", '"\\'])
def test_no_text_in_a_script_ends_it_or_begins_another(text):
    written = in_script([text])
    assert not set("<>&") & set(written)
    assert json.loads(written) == [text]


def test_the_script_finds_its_own_figure_and_knows_every_text():
    shown = some_slider()
    elements = Elements(shown.html)
    key = elements.all("div")[0]["id"]
    assert f'getElementById("{key}")' in elements.script
    assert 'addEventListener("input",show)' in elements.script
    assert "aria-valuetext" in elements.script
    assert 'style.display=i==s.value?"block":"none"' in elements.script
    texts = json.loads(re.search(r",t=(\[.*?\]);\n", elements.script, re.DOTALL).group(1))
    assert texts == [f"radius {value:g}: {NASTY}" for value in (0, 0.1, 0.3)]
    assert shown.html.count("</script>") == 1  # the one in a text would have ended the script
    assert elements.script.count("{") == elements.script.count("}")


def test_two_sliders_on_a_page_do_not_move_each_other():
    keys = {
        Elements(some_slider(**words).html).all("div")[0]["id"]
        for words in ({}, {"label": "Figure 1.2"}, {"name": "noise"})
    }
    assert len(keys) == 3
    assert some_slider().html == some_slider().html


def test_a_slider_asks_nothing_of_the_network():
    html = some_slider().html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "http" not in html


def test_it_stands_for_itself_as_text():
    shown = some_slider()
    assert repr(shown) == "Figure 1.1. A digit."
    assert shown._repr_html_() == shown.html


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"values": (0.1,), "start": 0}, "a slider needs at least two values and a start among them, got 1 and 0"),
        ({"start": 3}, "at least two values and a start among them, got 3 and 3"),
        ({"start": -1}, "at least two values and a start among them, got 3 and -1"),
        ({"name": " "}, "a figure needs its name"),
        ({"alt": ""}, "a figure needs its alt"),
        ({"caption": ""}, "a figure needs its caption"),
    ],
)
def test_a_slider_that_cannot_be_used_is_refused(knobs, sentence):
    with pytest.raises(ValueError, match=sentence):
        some_slider(**knobs)


# With a kernel


def test_the_live_slider_draws_between_the_values_too():
    widgets = pytest.importorskip("ipywidgets")
    box = some_slider().live()
    control, output = box.children
    assert isinstance(control, widgets.FloatSlider)
    assert (control.min, control.max, control.value) == (0.0, 0.3, 0.1)
    first = output.value
    (image,) = Elements(first).all("img")
    assert image["alt"] == f"radius 0.1: {NASTY}"
    control.value = 0.2
    assert output.value != first
    assert Elements(output.value).all("img")[0]["alt"] == f"radius 0.2: {NASTY}"
    assert Elements(output.value).open == []


@pytest.mark.parametrize(("static", "expected"), [("1", 1), ("0", 2), (None, 2)])
def test_a_book_keeps_no_widget_and_a_kernel_gets_one(monkeypatch, static, expected):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    if static is None:
        monkeypatch.delenv("TK_STATIC", raising=False)
    else:
        monkeypatch.setenv("TK_STATIC", static)
    it, box = some_slider(), some_box()
    for one, page in ((it, it.html), (box, box.first.html)):
        shown.clear()
        one._ipython_display_()
        assert len(shown) == expected
        assert shown[0].data == page


# A box for texts


def some_box(render=lambda text: Shown(f"<p>{text.upper()}</p>", text)):
    return text_box(render, "a red star", name="prompt")


def test_a_box_shows_its_first_text_and_draws_another_when_asked():
    pytest.importorskip("ipywidgets")
    box = some_box()
    assert (box._repr_html_(), repr(box)) == ("<p>A RED STAR</p>", "a red star")
    (line, button), output = (row := box.live().children)[0].children, row[1]
    assert (line.value, line.description, output.value) == ("a red star", "prompt", "")
    line.value = "two hearts"
    assert output.value == ""  # not while someone types
    button.click()
    assert (output.value, button.disabled) == ("<p>TWO HEARTS</p>", False)


def test_a_box_answers_what_cannot_be_drawn_with_the_reason():
    pytest.importorskip("ipywidgets")

    def render(text):
        if text != "a red star":
            raise ValueError(f"unknown word {NASTY}")
        return Shown("<p>drawn</p>", text)

    (line, button), output = (row := some_box(render).live().children)[0].children, row[1]
    line.value = "a zebra"
    button.click()
    assert not button.disabled
    assert "".join(Elements(output.value).text) == f"unknown word {NASTY}"
    assert Elements(output.value).open == []
    with pytest.raises(ValueError, match="a figure needs its name"):
        text_box(render, "a red star", name=" ")
