"""The token strip as HTML: nothing lost, nothing executed, nothing said by colour alone."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape

from helpers.sample_runs import HOSTILE, MIXED, SENTENCES, make_trace
from lpr_lab.measure.trace import routing_change
from lpr_lab.views.html.layers import render_grid
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.html.token_text import segment_style
from lpr_lab.views.html.tokens import MAX_TOKENS, StripChoices, render_token_strip, show_token_strip
from lpr_lab.views.static import read_static


class Page(HTMLParser):
    """Collects the text of the reading paragraph, every tag, and the attributes of the options."""

    def __init__(self, markup: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = False
        self.feed(str(markup))  # what is added to `Markup` would be escaped

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside |= tag == "p" and "lpr-text" in (dict(attrs).get("class") or "")

    def handle_endtag(self, tag):
        self._inside &= tag != "p"

    def handle_data(self, data):
        self.text += data if self._inside else ""

    @property
    def options(self) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if attributes.get("role") == "option"]

    @property
    def payload(self) -> dict:
        return json.loads(next(a["data-trace"] for _, a in self.tags if "data-trace" in a) or "")


def shown(text: str) -> str:
    """What a page shows of a text: control characters as their pictures."""
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\t\n\r" else c for c in text)


@pytest.mark.parametrize("text", [*SENTENCES.values(), MIXED, HOSTILE])
def test_the_paragraph_is_the_text(text):
    assert Page(render_token_strip(make_trace(text))).text == shown(text)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=80))
def test_the_paragraph_is_any_text_and_brings_no_markup(text):
    page = Page(render_token_strip(make_trace(text, num_layers=2)))
    assert page.text == shown(text)
    allowed = (
        "section div fieldset legend label input span p i small b output table caption thead tbody tr th td button"
    )
    assert {tag for tag, _ in page.tags} <= set(allowed.split())


def test_every_token_is_one_option_with_a_label_in_words():
    trace = make_trace(MIXED)
    options = Page(render_token_strip(trace)).options
    assert sorted(int(o["data-i"] or -1) for o in options) == list(range(trace.num_tokens))
    assert all(re.search(r"token \d+ of \d+, .+, original expert", o["aria-label"] or "") for o in options)
    assert [o["tabindex"] for o in options] == ["-1"] * len(options)


def test_reading_mode_uses_nothing_that_breaks_arabic_joining():
    css = read_static("token_strip.css")
    rules = re.findall(r"\.lpr-(?:t|o|n|on|shared)\b[^{]*\{([^}]*)\}", css)
    assert rules
    for rule in rules:
        for name in re.findall(r"(?:^|;)\s*([a-z-]+)\s*:", rule):
            assert name.startswith(("background", "outline", "--", "cursor", "border-radius", "text-decoration")), name
    strip = render_token_strip(make_trace(SENTENCES["ar"], "ar"))
    paragraph = strip.split('<p class="lpr-text"')[1].split("</p>")[0]
    assert 'dir="rtl"' in paragraph and 'lang="ar"' in paragraph
    assert "<bdi" not in paragraph and " dir=" not in paragraph.split(">", 1)[1]


def test_the_payload_holds_the_trace_exactly():
    trace = make_trace(SENTENCES["el"], "el", num_layers=6, num_experts=4)
    payload = Page(render_token_strip(trace)).payload
    shape = trace.expert_ids.shape
    ids = np.frombuffer(base64.b64decode(payload["ids"]), np.uint8).reshape(shape)
    weights = np.frombuffer(base64.b64decode(payload["weights"]), "<u2").reshape(shape) / 65535
    assert (ids == trace.expert_ids).all()
    assert np.abs(weights - trace.expert_weights).max() < 1e-5
    assert payload["experts"] == trace.num_experts.tolist()
    assert [fact[3] for fact in payload["tokens"]] == trace.token_ids


def test_what_is_beyond_the_limit_is_announced():
    strip = render_token_strip(make_trace("ab " * (MAX_TOKENS + 400), num_layers=1))
    assert "Showing the first 2,048 of" in strip
    assert len(Page(strip).options) == MAX_TOKENS


def test_an_empty_trace_and_one_without_router_say_so():
    trace = make_trace("x", num_layers=2)
    trace.token_ids, trace.token_bytes = [], []
    assert "empty" in render_token_strip(trace)
    dense = make_trace("Dense.", num_layers=2)
    dense.layers = dense.num_experts = np.zeros(0, int)
    dense.expert_ids = dense.expert_ids[:0]
    dense.expert_weights = dense.expert_weights[:0]
    dense.original_weight = dense.original_weight[:0]
    assert "no router" in render_token_strip(dense)


def test_what_the_url_asks_for_is_shown_or_quietly_ignored():
    trace = make_trace("Hello there.", num_layers=3)
    asked = render_token_strip(trace, StripChoices(layer=1, token=2, mode="tokens", colour="gain"))
    assert 'data-layer="1" data-expert="" data-token="2" data-mode="tokens" data-colour="gain"' in asked
    unknown = render_token_strip(trace, StripChoices(layer=77, token=9999, mode="no", colour='"><b>'))
    assert 'data-layer="all" data-expert="" data-token="" data-mode="reading" data-colour="original"' in unknown


def test_where_styles_are_taken_out_words_stand_in_place_of_the_strip():
    trace = make_trace("Hello there.")
    page = Page(render_token_strip(trace, standalone=True))
    classes = {attributes.get("class", "").split(" ")[0]: attributes for _, attributes in page.tags}
    assert "hidden" in classes["lpr-strip"] and "hidden" not in classes["lpr-untrusted"]
    style = read_static("token_strip.css")
    assert ".lpr-strip[hidden] { display: block" in style and ".lpr-untrusted { display: none" in style
    assert "lpr-untrusted" not in render_token_strip(trace)


def test_standalone_brings_style_and_script_and_reaches_out_to_nothing():
    strip = render_token_strip(make_trace("Hi."), standalone=True)
    assert "<style>" in strip and "window.lprTokenStrip" in strip
    assert not re.search(r"https?://|url\(|@import", strip)
    assert "<script" not in render_token_strip(make_trace("Hi."))


def test_segments_run_with_the_reading_direction():
    forward, backward = segment_style([1.0, 0.0], False), segment_style([1.0, 0.0], True)
    assert "background-position:0.0% 100%,100.0% 100%" in forward
    assert "background-position:100.0% 100%,0.0% 100%" in backward


@pytest.mark.parametrize(
    ("piece", "label"),
    [
        (b" the", "·the"),
        (b"\n\t", "⏎→"),
        ("\u200d".encode(), "ZWJ"),
        (b"\xe0\xa6", "⟨E0 A6⟩"),
        (b"a\xe0", "a ⟨E0⟩"),
        (b"", "∅"),
        (None, "◆"),
        (b"\x07", "U+0007"),
    ],
)
def test_chips_name_what_cannot_be_seen(piece, label):
    assert chip_label(piece) == label


def test_attribute_values_cannot_break_out():
    strip = render_token_strip(make_trace('" onmouseover="boom()'))
    assert 'onmouseover="boom' not in strip
    assert escape('"') in strip


def test_a_notebook_shows_the_strip_with_all_it_needs(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show_token_strip(make_trace("Hello."), StripChoices(mode="tokens"))
    assert "window.lprTokenStrip" in shown[0].data and 'data-mode="tokens"' in shown[0].data


# ------------------------------------------------------------------------------------------ layers and experts


def reading(packed: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), kind)


def with_probabilities(trace):
    """Probabilities that rank the chosen expert first and give every other one something."""
    most = int(trace.num_experts.max())
    probs = np.full((*trace.expert_ids.shape[:2], most), 0.1, np.float32)
    np.put_along_axis(probs, trace.expert_ids[:, :, :1], 1 - 0.1 * (most - 1), axis=2)
    trace.router_probs = probs
    return trace


def test_every_layer_and_expert_has_a_cell_with_its_number_in_words():
    trace = make_trace(SENTENCES["el"], "el", num_layers=5, num_experts=4)
    page = Page(render_grid(trace))
    cells = [attributes for tag, attributes in page.tags if tag == "button"]
    assert len(cells) == trace.num_experts.sum()
    share = trace.first_share()
    for place in cells:
        layer, expert = int(place["data-l"] or -1), int(place["data-e"] or -1)
        label = place["aria-label"] or ""
        assert label.startswith(f"layer {layer}, expert {expert}, {'new' if expert else 'original'}: ")
        shown = float(label.split(": ")[1].split("%")[0].strip("<>"))
        assert shown == pytest.approx(100 * share[layer, expert], abs=0.5)
    assert {place["tabindex"] for place in cells} == {"-1"}  # the script makes one of them a tab stop


def test_probabilities_travel_only_when_they_say_more_than_the_weights():
    trace = make_trace(SENTENCES["en"], "en", num_layers=3, num_experts=4)
    assert Page(render_token_strip(trace)).payload["probs"] is None
    packed = Page(render_token_strip(with_probabilities(trace))).payload["probs"]
    assert trace.router_probs is not None
    assert reading(packed, "<u2") / 65535 == pytest.approx(trace.router_probs.ravel(), abs=1e-4)
    two = make_trace(SENTENCES["en"], "en", num_layers=3)
    two.router_probs = np.stack([two.original_weight, 1 - two.original_weight], axis=-1)
    assert Page(render_token_strip(two)).payload["probs"] is None


def test_what_moved_travels_with_the_strip_layer_by_layer():
    after, before = (make_trace(SENTENCES["en"], "en", num_layers=4) for _ in range(2))
    before.layers = before.layers + 1  # layer 0 was dense then
    before.expert_ids = before.expert_ids[..., ::-1].copy()
    change = routing_change(before, after, same_model=True)
    strip = render_token_strip(after, StripChoices(colour="change"), change=change, change_from="<b>G1</b>")
    payload = Page(strip).payload["change"]
    assert payload["rows"] == [-1, 0, 1, 2]
    assert reading(payload["moved"], "u1").reshape(change.moved.shape).tolist() == change.moved.tolist()
    assert reading(payload["shift"], "<u2") / 32767 - 1 == pytest.approx(change.shift.ravel(), abs=1e-4)
    assert 'data-colour="change"' in strip and "<b>G1" not in strip
    assert 'data-colour="original"' in render_token_strip(after, StripChoices(colour="change"))


def test_an_expert_is_picked_only_in_a_layer_that_has_it():
    trace = make_trace("Hello there.", num_layers=3, num_experts=4)  # 2, 3 and 4 experts
    assert 'data-layer="2" data-expert="2"' in render_token_strip(trace, StripChoices(layer=2, expert=2))
    assert 'data-layer="0" data-expert=""' in render_token_strip(trace, StripChoices(layer=0, expert=2))
    assert 'data-layer="all" data-expert=""' in render_token_strip(trace, StripChoices(expert=1))


def test_a_second_strip_on_a_page_keeps_its_choices_to_itself():
    trace = make_trace("Hello there.", num_layers=2)
    assert 'data-linked="yes"' in render_token_strip(trace)
    assert 'data-linked="no"' in render_token_strip(trace, linked=False)


def test_bits_are_named_after_what_is_compared():
    trace = make_trace("Hello there.", num_layers=2)
    assert Page(render_token_strip(trace)).payload["names"] == ["base", "expanded"]
    trace.model["changed"] = True
    assert Page(render_token_strip(trace)).payload["names"] == ["as it is", "changed"]
