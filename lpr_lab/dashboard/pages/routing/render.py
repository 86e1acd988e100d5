"""HTML of page `/routing`: where tokens went, what moved, what a change would cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from lpr_lab.dashboard import shell
from lpr_lab.measure.trace import RoutingChange, RoutingTrace, spans
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.numbers import NOT_MEASURED, percent
from lpr_lab.wording import counted

KEPT = 0.9
"""From this share of tokens on, an original language counts as kept (runs/claims.py); the aim is all."""


WHO_SEES_TYPED = shell.caption(
    "Not kept: only who has this page’s address sees this text, and it is gone when the dashboard is restarted. A kept "
    "text can be seen, renamed and deleted by everybody who can open this dashboard."
)
WHO_SEES_KEPT = shell.caption(
    "Kept with this run: everybody who can open this dashboard can see, rename and delete this text. To change its "
    "words, change them above and trace it again."
)
NOT_TRACED = shell.caption(
    "Kept with this run and not traced yet: trace it to see where its tokens go, then put the trace in its place. What "
    "is changed above is saved by “Save changes”."
)


def role_of(run: Run | None, code: str | None) -> str | None:
    """Return `original` or `expanded`, or None for a language the run knows nothing of."""
    if run is None or not code:
        return None
    original, expanded = shell.languages_of(run)
    return "original" if code in original else "expanded" if code in expanded else None


def finding(trace: RoutingTrace, role: str | None) -> Markup:
    """Return in plain words how many of a text's tokens reached the original expert, against what should be."""
    if not len(trace.layers) or not trace.is_text.any():
        return Markup("This model has no router: every token took the one path there is.")
    share = float(trace.reached_original().mean())
    kept, moved = percent(share), percent(1 - share)
    experts = "new experts" if int(trace.num_experts.max()) > 2 else "the new expert"
    if role is None:
        split = f"{kept} of the tokens reached the original expert, {moved} went to {experts}"
        if not trace.language:
            return escape(f"No language was said for this text: {split}.")
        name = language_name(trace.language)
        return escape(f"{name} is neither an original nor an expanded language of this run: {split}.")
    if role == "original":
        judged = "as it should be" if share >= KEPT else f"less than the {percent(KEPT)} that counts as kept"
        said = f"{kept} of its tokens reached the original expert, {judged}. The target is 100%."
    else:
        judged = "" if share <= 0.5 else " That is less than half: the expansion hardly takes part."
        said = f"{moved} of its tokens went to {experts}, {kept} to the original one.{judged}"
    sentence = Markup('{} is an <span class="lpr-{}">{} language</span>: {}')
    return sentence.format(language_name(trace.language or ""), role, role, said)


def detail(trace: RoutingTrace) -> Markup:
    """Return a second sentence: what was counted, the range over layers, the weight, and what it changed in bits."""
    text, marks = int(trace.is_text.sum()), int((~trace.is_text).sum())
    mark = f" and {counted(marks, 'mark')} ◆" if marks else ""
    layers = len(trace.layers)
    parts = [f"{counted(text, 'token')}{mark}, mean over {counted(layers, 'layer')} with a router"]
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
    return shell.more("; ".join(parts) + ".", meaning)


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
    start = f"In {name} {percent(was)} reached the original expert, here {percent(now)}."
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


def across_languages(run: Run, traces: Mapping[str, RoutingTrace]) -> Markup:
    """Return the table of all sample texts: the share that reached the original expert, stage by stage."""
    rows = [(code, trace) for code, trace in traces.items() if len(trace.layers) and trace.is_text.any()]
    stages = list(dict.fromkeys(name for _, trace in rows for name in trace.stage_names))
    if len(rows) < 2:
        return Markup("")
    return render(
        "dashboard/pages/routing/languages.html.j2",
        finding=_both_kinds(run, rows),
        stages=stages,
        rows=[_language_row(code, role_of(run, code), trace, stages) for code, trace in rows],
    )


def _both_kinds(run: Run, rows: Sequence[tuple[str, RoutingTrace]]) -> str:
    parts = []
    for role in ("original", "expanded"):
        shares = [float(trace.reached_original().mean()) for code, trace in rows if role_of(run, code) == role]
        if shares:
            parts.append(f"{percent(float(np.mean(shares)))} of the tokens of {role} languages")
    return f"{' and '.join(parts)} reached the original expert." if parts else "Share that reached the original expert."


def _language_row(code: str, role: str | None, trace: RoutingTrace, stages: Sequence[str]) -> dict[str, Any]:
    reached = trace.reached_original()
    traced = {stage: percent(trace.at(stage).reached_original().mean()) for stage in trace.stage_names}
    return {
        "name": shell.language_chips([code], role) if role else language_name(code),
        "target": {"original": "100%", "expanded": "at most half"}.get(role or "", NOT_MEASURED),
        "shares": [traced.get(stage) for stage in stages],
        "span": f"{percent(reached.min())} to {percent(reached.max())}",
    }


# ------------------------------------------------------------------------------------------------------ what if


def cost_of_change(changed: RoutingTrace, what: str) -> Markup:
    """Return what a changed run costs: total bits before and after, and how many tokens got less likely.

    Args:
        changed: of `measure.routing.trace_changed`; its `base_log_prob` is the model as it is.
        what: the change, such as `expert 0 forced in all layers`.
    """
    heading = Markup(
        '<h2>{} <span class="lpr-badge">changed run, not saved</span></h2><p class="lpr-subfinding">{}</p>'
    )
    return heading.format(what, _cost(changed))


def _cost(changed: RoutingTrace) -> str:
    before, after = bits_of(changed, changed.base_log_prob), bits_of(changed, changed.log_prob)
    if before is None or after is None:
        return "Log-probabilities are not known."
    loss = _losses(changed)[changed.is_text]
    worse, better = int((loss > 0.05).sum()), int((loss < -0.05).sum())
    text = int(changed.is_text.sum())
    if abs(after - before) < 0.05 and not worse and not better:
        return f"Nothing changes: the text still costs {before:.1f} bits."
    word = "more" if after > before else "fewer"
    return (
        f"The text costs {abs(after - before):.1f} bits {word}: {before:.1f} as it is, {after:.1f} changed. "
        f"{worse} of {text} tokens got less likely, {better} more likely, {text - worse - better} stayed."
    )


def _losses(changed: RoutingTrace) -> np.ndarray:
    """Return by how many bits each token got more expensive, float [T]; NaN for the first."""
    assert changed.log_prob is not None and changed.base_log_prob is not None
    return (changed.base_log_prob - changed.log_prob) / np.log(2)


def change_table(changed: RoutingTrace, limit: int = 2048) -> Markup:
    """Return log-probability token by token, in bits, as it is and changed."""
    if changed.log_prob is None or changed.base_log_prob is None:
        return Markup("")
    rows = []
    for index, loss in list(enumerate(_losses(changed)))[:limit]:
        if not np.isnan(loss):
            now, was = (-float(v[index]) / np.log(2) for v in (changed.log_prob, changed.base_log_prob))
            sign = "+" if loss > 0.005 else "−" if loss < -0.005 else ""
            label = chip_label(changed.token_bytes[index])
            rows.append((index + 1, label, (f"{was:.2f}", f"{now:.2f}", f"{sign}{abs(loss):.2f}")))
    return render("dashboard/pages/routing/changes.html.j2", rows=rows)


def layers_said(layers: Sequence[int], known: Sequence[int]) -> str:
    """Return which layers, for people: `all 30 layers`, `layer 3`, `layers 0-5, 12`."""
    if len(layers) == len(known):
        return f"all {len(known)} layers" if len(known) > 1 else f"layer {known[0]}"
    return f"layer{'s' if len(layers) > 1 else ''} {spans(layers)}"


def load_table(rows: Any) -> Markup:
    """Return the numbers of the plot over documents as a table."""
    table = rows.pivot_table(index="layer", columns="language", values="mass")
    codes = list(dict.fromkeys(rows["language"]))
    return render(
        "dashboard/pages/routing/load.html.j2",
        heads=[language_name(code) for code in codes],
        rows={layer: [percent(table.loc[layer, code]) for code in codes] for layer in table.index},
    )
