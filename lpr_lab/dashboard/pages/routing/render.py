"""What page `/routing` says in words and small tables: where tokens went, what moved, what a change would cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.shell import esc
from lpr_lab.measure.trace import RoutingChange, RoutingTrace, spans
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.numbers import NOT_MEASURED, percent

KEPT = 0.9
"""From this share of tokens on, an original language counts as kept (runs/claims.py); the aim is all."""


WHO_SEES_TYPED = (
    '<p class="lpr-caption">Not kept: only who has this page’s address sees this text, and it is gone when the '
    "dashboard is restarted. A kept text can be seen, renamed and deleted by everybody who can open this dashboard.</p>"
)
WHO_SEES_KEPT = (
    '<p class="lpr-caption">Kept with this run: everybody who can open this dashboard can see, rename and delete this '
    "text. To change its words, change them above and trace it again.</p>"
)


def role_of(run: Run | None, code: str | None) -> str | None:
    """Return `original` or `expanded`, or None for a language the run knows nothing of."""
    if run is None or not code:
        return None
    original, expanded = shell.languages_of(run)
    return "original" if code in original else "expanded" if code in expanded else None


def finding(trace: RoutingTrace, role: str | None) -> str:
    """Return in plain words how many of a text's tokens reached the original expert, against what should be."""
    if not len(trace.layers) or not trace.is_text.any():
        return "This model has no router: every token took the one path there is."
    share = float(trace.reached_original().mean())
    name = esc(language_name(trace.language or ""))
    experts = "new experts" if int(trace.num_experts.max()) > 2 else "the new expert"
    if role == "original":
        judged = "as it should be" if share >= KEPT else f"less than the {percent(KEPT)} that counts as kept"
        return (
            f'{name} is an <span class="lpr-original">original language</span>: {percent(share)} of its tokens reached '
            f"the original expert, {judged}. The target is 100%."
        )
    if role == "expanded":
        judged = "" if share <= 0.5 else " That is less than half: the expansion hardly takes part."
        return (
            f'{name} is an <span class="lpr-expanded">expanded language</span>: {percent(1 - share)} of its tokens '
            f"went to {experts}, {percent(share)} to the original one.{judged}"
        )
    split = f"{percent(share)} of the tokens reached the original expert, {percent(1 - share)} went to {experts}"
    if not trace.language:
        return f"No language was said for this text: {split}."
    return f"{name} is neither an original nor an expanded language of this run: {split}."


def detail(trace: RoutingTrace) -> str:
    """Return a second sentence: what was counted, the range over layers, the weight, and what it changed in bits."""
    text, marks = int(trace.is_text.sum()), int((~trace.is_text).sum())
    mark = f" and {marks} mark{'s' if marks != 1 else ''} ◆" if marks else ""
    layers = len(trace.layers)
    parts = [f"{text} token{'s' if text != 1 else ''}{mark}, mean over {layers} layers with a router"]
    if layers and text:
        reached = trace.reached_original()
        low, high = int(reached.argmin()), int(reached.argmax())
        if percent(reached[low]) == percent(reached[high]):
            parts[0] += f" ({percent(reached[low])} in every one)"
        else:
            parts[0] += (
                f" ({percent(reached[low])} in layer {trace.layers[low]} to {percent(reached[high])} in layer "
                f"{trace.layers[high]})"
            )
        parts.append(f"mean weight of the original expert {percent(trace.original_share())}")
    bits = [bits_per_byte(trace, values) for values in (trace.base_log_prob, trace.log_prob)]
    if None not in bits:
        parts.append(f"bits per byte of this text: base {bits[0]:.2f}, expanded {bits[1]:.2f}")
    meaning = "A token goes to the expert of its largest weight; its weights in a layer sum to 1."
    return f'<span class="lpr-more">{esc("; ".join(parts))}. {meaning}</span>'


def bits_of(trace: RoutingTrace, log_prob: np.ndarray | None) -> float | None:
    """Return the bits that a text costs, or None where its log-probability is not known."""
    if log_prob is None:
        return None
    total = -float(log_prob[trace.is_text].sum()) / float(np.log(2))
    return None if np.isnan(total) else total


def bits_per_byte(trace: RoutingTrace, log_prob: np.ndarray | None) -> float | None:
    """Return `bits_of` by UTF-8 byte of the text."""
    total = bits_of(trace, log_prob)
    return None if total is None or not trace.text else total / len(trace.text.encode())


def what_moved(change: RoutingChange, before: RoutingTrace, after: RoutingTrace, name: str) -> str:
    """Return a sentence: how many choices moved since another trace, which way, and where most of them."""
    counts = change.counts()
    was, now = (float(trace.reached_original().mean()) for trace in (before, after))
    start = f"In {esc(name)} {percent(was)} reached the original expert, here {percent(now)}."
    if not counts["moved"]:
        return f"{start} No choice moved."
    ways = [
        f"{counts[key]:,} {words}"
        for key, words in (
            ("to_original", "to the original expert"),
            ("to_new", "to a new expert"),
            ("among_new", "from one new expert to another"),
        )
        if counts[key]
    ]
    by_layer = change.moved.sum(axis=1)
    most = int(by_layer.argmax())
    return (
        f"{start} {counts['moved']:,} of {counts['choices']:,} choices moved "
        f"({percent(counts['moved'] / counts['choices'])}): {', '.join(ways)}; most in layer {change.layers[most]} "
        f"({int(by_layer[most])})."
    )


def across_languages(run: Run, traces: Mapping[str, RoutingTrace]) -> str:
    """Return the table of all sample texts: the share that reached the original expert, stage by stage."""
    rows = [(code, trace) for code, trace in traces.items() if len(trace.layers) and trace.is_text.any()]
    stages = list(dict.fromkeys(name for _, trace in rows for name in trace.stage_names))
    if len(rows) < 2:
        return ""
    heads = "".join(f'<th scope="col" class="lpr-number">{esc(stage or "Reached it")}</th>' for stage in stages)
    body = "".join(_language_row(code, role_of(run, code), trace, stages) for code, trace in rows)
    several = ", stage by stage" if len(stages) > 1 else ""
    return (
        '<section class="lpr-section"><h2>Every sample text of this run</h2>'
        f'<p class="lpr-subfinding">{esc(_both_kinds(run, rows))}</p>{_scroll("Every sample text")}'
        '<table class="lpr-table lpr-plain lpr-narrow-first"><caption class="lpr-hidden">Share of tokens that reached '
        f"the original expert, mean over layers{several}</caption><thead><tr><th scope=col>Language</th>"
        f'<th scope="col">Target</th>{heads}<th scope="col" class="lpr-number">Over the layers</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _scroll(name: str) -> str:
    """Begin a box that scrolls sideways where the page is narrow, also by keyboard."""
    return f'<div class="lpr-scroll" role="region" tabindex="0" aria-label="{name}">'


def _both_kinds(run: Run, rows: Sequence[tuple[str, RoutingTrace]]) -> str:
    parts = []
    for role in ("original", "expanded"):
        shares = [float(trace.reached_original().mean()) for code, trace in rows if role_of(run, code) == role]
        if shares:
            parts.append(f"{percent(float(np.mean(shares)))} of the tokens of {role} languages")
    return f"{' and '.join(parts)} reached the original expert." if parts else "Share that reached the original expert."


def _language_row(code: str, role: str | None, trace: RoutingTrace, stages: Sequence[str]) -> str:
    target = {"original": "100%", "expanded": "at most half"}.get(role or "", NOT_MEASURED)
    cells = "".join(
        f'<td class="lpr-number">{percent(trace.at(stage).reached_original().mean())}</td>'
        if stage in trace.stage_names
        else f'<td class="lpr-number" title="not traced at this stage">{NOT_MEASURED}</td>'
        for stage in stages
    )
    reached = trace.reached_original()
    span = f"{percent(reached.min())} to {percent(reached.max())}"
    chip = shell.language_chips([code], role) if role else esc(language_name(code))
    return f'<tr><th scope="row">{chip}</th><td>{target}</td>{cells}<td class="lpr-number">{span}</td></tr>'


# ------------------------------------------------------------------------------------------------------ what if


def cost_of_change(changed: RoutingTrace, what: str) -> str:
    """Return what a changed run costs: total bits before and after, and how many tokens got less likely.

    Args:
        changed: of `measure.routing.trace_changed`; its `base_log_prob` is the model as it is.
        what: the change, such as `expert 0 forced in all layers`.
    """
    before, after = bits_of(changed, changed.base_log_prob), bits_of(changed, changed.log_prob)
    badge = '<span class="lpr-badge">changed run, not saved</span>'
    if before is None or after is None:
        return f'<h2>{esc(what)} {badge}</h2><p class="lpr-subfinding">Log-probabilities are not known.</p>'
    loss = _losses(changed)[changed.is_text]
    worse, better = int((loss > 0.05).sum()), int((loss < -0.05).sum())
    text = int(changed.is_text.sum())
    if abs(after - before) < 0.05 and not worse and not better:
        said = f"Nothing changes: the text still costs {before:.1f} bits."
    else:
        word = "more" if after > before else "fewer"
        said = (
            f"The text costs {abs(after - before):.1f} bits {word}: {before:.1f} as it is, {after:.1f} changed. "
            f"{worse} of {text} tokens got less likely, {better} more likely, {text - worse - better} stayed."
        )
    return f'<h2>{esc(what)} {badge}</h2><p class="lpr-subfinding">{said}</p>'


def _losses(changed: RoutingTrace) -> np.ndarray:
    """Return by how many bits each token got more expensive, float [T]; NaN for the first."""
    assert changed.log_prob is not None and changed.base_log_prob is not None
    return (changed.base_log_prob - changed.log_prob) / np.log(2)


def change_table(changed: RoutingTrace, limit: int = 2048) -> str:
    """Return log-probability token by token, in bits, as it is and changed."""
    if changed.log_prob is None or changed.base_log_prob is None:
        return ""
    rows = []
    for index, loss in list(enumerate(_losses(changed)))[:limit]:
        if not np.isnan(loss):
            now, was = (-float(v[index]) / np.log(2) for v in (changed.log_prob, changed.base_log_prob))
            label = esc(chip_label(changed.token_bytes[index]))
            sign = "+" if loss > 0.005 else "−" if loss < -0.005 else ""
            rows.append(
                f'<tr><td class="lpr-number">{index + 1}</td><th scope="row"><bdi>{label}</bdi></th>'
                f'<td class="lpr-number">{was:.2f}</td><td class="lpr-number">{now:.2f}</td>'
                f'<td class="lpr-number">{sign}{abs(loss):.2f}</td></tr>'
            )
    heads = "".join(f'<th scope="col" class="lpr-number">{name}</th>' for name in ("As it is", "Changed", "Difference"))
    return (
        '<details class="lpr-fold"><summary>Show every token in a table</summary>'
        f'{_scroll("Every token")}<table class="lpr-table lpr-plain">'
        '<caption class="lpr-hidden">Surprise of each token in bits, as the model '
        'is and in the changed run</caption><thead><tr><th scope="col" class="lpr-number">Token</th>'
        f'<th scope="col">Text</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></details>'
    )


def layers_said(layers: Sequence[int], known: Sequence[int]) -> str:
    """Return which layers, for people: `all 30 layers`, `layer 3`, `layers 0-5, 12`."""
    if len(layers) == len(known):
        return f"all {len(known)} layers" if len(known) > 1 else f"layer {known[0]}"
    return f"layer{'s' if len(layers) > 1 else ''} {spans(layers)}"


def load_table(rows: Any) -> str:
    """Return the numbers of the plot over documents as a table."""
    table = rows.pivot_table(index="layer", columns="language", values="mass")
    codes = list(dict.fromkeys(rows["language"]))
    heads = "".join(f'<th scope="col" class="lpr-number">{esc(language_name(code))}</th>' for code in codes)
    body = "".join(
        f'<tr><th scope="row">{layer}</th>'
        + "".join(f'<td class="lpr-number">{percent(table.loc[layer, code])}</td>' for code in codes)
        + "</tr>"
        for layer in table.index
    )
    return (
        '<details class="lpr-fold"><summary>Show as a table</summary>'
        f'{_scroll("Weight by layer and language")}<table class="lpr-table lpr-plain">'
        '<caption class="lpr-hidden">Mean weight of the original expert by layer '
        f'and language</caption><thead><tr><th scope="col">Layer</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
        "</div></details>"
    )
