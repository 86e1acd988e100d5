"""The pictures and tables of `docs/findings.md` and `docs/allocation.md`, made from the scorecards in the package.

    python docs/hooks/finding_figures.py

They are committed, so that they are seen without building the site; a test holds them to the results.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from marked_tables import table, with_tables

from lpr_lab.experiments.each_language.table import language_table
from lpr_lab.experiments.scorecard.bases import compare_steps
from lpr_lab.runs.scorecard.table import read_saved
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.forest import SIGNS, ForestRow, claims_forest, forest
from lpr_lab.views.numbers import NOT_MEASURED, points, points_and_ends

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "assets" / "findings"
SMALL, SMOLLM2, GEMMA = "small-world", "smollm2-135m", "gemma3-270m"
BITS = "change of bits per byte, points: below 0 is a gain on new languages, above 0 forgetting on original ones"
CLAIMS = {
    "stage-1": (SMALL, (8,)),
    "review": (SMALL, (9, 10)),
    "routers": (SMALL, (11,)),
    "order": (SMALL, (12,)),
    "gain": (SMALL, (13, 14)),
    "start": (SMALL, (15, 16)),
    "review-size": (SMALL, (17, 18)),
    "second-group": (SMALL, (22,)),
    "smollm2-stages": (SMOLLM2, (8, 10)),
    "smollm2-layers": (SMOLLM2, (19, 20, 21)),
}
"""Pictures of the parts of claims: on which base, and which."""
OVER_WORLDS = (8, 9, 10, 15, 17)
"""Claims of which the parts are drawn over small worlds of several seeds."""
ARMS = {"arms": SMALL, "smollm2-arms": SMOLLM2, "gemma-arms": GEMMA}
"""Pictures of what the arms gained and forgot."""
MAIN_ARMS = (
    *("moe_lpr", "review_without_lpr", "one_stage", "no_copy", "layer_moe", "route_first", "guided_review"),
    *("full_replay", "full_replay, tenth of the rate", "sparse_moe", "lora", "lora_moe, tenth of the rate"),
    *("llama_pro", "ssu", "lape", "interpolate"),
)
"""Arms that are drawn; the tables have all."""
KIN = (
    *("moe_lpr", "no_review, routers held", "moe_lpr, running mean", "moe_lpr, running mean and bias", "local_review"),
    *("local_review, means", "guided_review", "route_first", "route_first, tokens alone", "route_first, means"),
    "route_first, 2 experts",
)
"""From the papers' two stages to route first, one difference after the other."""


def pictures() -> dict[str, str]:
    """Return every picture by its name, as SVG."""
    cards = {base: read_saved(base) for base in (SMALL, SMOLLM2, GEMMA)}
    found = {name: _claims(cards[base], numbers) for name, (base, numbers) in CLAIMS.items()}
    found |= {name: _arms(cards[base]) for name, base in ARMS.items()}
    found["instrument"] = _instrument(cards[SMALL])
    found["equal-gain"] = _equal_gain(cards[SMALL])
    found["allocations"] = _allocations(cards[SMALL])
    found["languages"] = _languages()
    found["worlds"] = _over_worlds()
    return {name: f"{svg}\n" for name, svg in found.items() if svg}


def _row(label: str, of: Mapping[str, Any], **further: str) -> ForestRow:
    return ForestRow(label=label, **{end: of[end] for end in ("value", "low", "high")}, **further)


def _claims(card: Mapping[str, Any], numbers: Sequence[int]) -> str:
    return claims_forest([row for row in card["claims"] if row["number"] in numbers])


def _arms(card: Mapping[str, Any]) -> str:
    rows = []
    for arm in sorted((arm for arm in card["arms"] if arm["arm"] in MAIN_ARMS), key=_place):
        for key, role, called in (
            ("expanded", "expanded", "new"),
            ("reviewed", "original", "original, reviewed"),
            ("unreviewed", "original", "original, not reviewed"),
        ):
            if key in arm:
                rows.append(_row(f"{arm['arm']}: {called}", arm[key], role=role))
    return forest(f"What each arm gained and forgot on {card['base']}", rows, BITS)


def _place(arm: Mapping[str, Any]) -> int:
    return MAIN_ARMS.index(arm["arm"])


def _instrument(card: Mapping[str, Any]) -> str:
    rows = [
        _row(check["name"], check, sign={True: "✓", False: "✕", None: "?"}[check["passes"]])
        for check in card["instrument"]
        if "shuffled" not in check["name"]
    ]
    return forest("Checks of the instrument", rows, "points; ✓ as it must be")


def _equal_gain(card: Mapping[str, Any]) -> str:
    rows = [_row(row["method"].replace("_", " "), row["more"]) for row in card["equal_gain"] if not row["why"]]
    return forest("Forgetting at MoE-LPR's gain", rows, "points above MoE-LPR; below 0 forgets less") if rows else ""


def _allocations(card: Mapping[str, Any]) -> str:
    rows = [
        _row(row["rule"], row["expanded_less_uniform"])
        for row in card["allocations"]["rules"]
        if row["expanded_less_uniform"]["seeds"] and "one expert" not in row["rule"]
    ]
    return forest("Rules for which layers get the experts", rows, "points beside uniform; below 0 gains more")


@cache
def side_by_side() -> Mapping[str, Any]:
    """Return the verdicts on all bases that came with the code (`runs.scorecard.bases`)."""
    *_, last = compare_steps([], FOLDER)
    assert last.result is not None
    return last.result


def _over_worlds() -> str:
    found = side_by_side()
    if not found["worlds"]:
        return ""
    return claims_forest(
        [
            {"number": row["number"], "parts": [{"text": part["text"], **part["over_worlds"]} for part in row["parts"]]}
            for row in found["claims"]
            if row["number"] in OVER_WORLDS
        ]
    )


def _by_gain() -> list[Mapping[str, Any]]:
    """Return the languages that SmolLM2 was taught alone, the largest gain first."""
    table, _ = language_table(SMOLLM2, FOLDER)  # a folder without runs: those that came with the code
    return sorted((row for row in table["rows"] if "gain" in row), key=lambda row: row["gain"]["value"])


def _languages() -> str:
    drawn = [_row(language_name(row["language"]), row["gain"], role="expanded") for row in _by_gain()]
    return forest("What SmolLM2-135M gained in each language", drawn, "change of bits per byte, points")


# ------------------------------------------------------------------------------------------------------------- tables


def tables() -> dict[str, list[str]]:
    """Return every table by its name, as lines of Markdown."""
    cards = {base: read_saved(base) for base in (SMALL, SMOLLM2, GEMMA)}
    return {
        "small-world arms": _arms_table(cards[SMALL]),
        "smollm2 arms": _arms_table(cards[SMOLLM2]),
        "gemma arms": _arms_table(cards[GEMMA]),
        "kin": _kin_table(cards[SMALL]),
        "smollm2 kin": _kin_table(cards[SMOLLM2]),
        "equal gain": _equal_gain_table(cards[SMALL]),
        "allocations": _allocations_table(cards[SMALL]),
        "smollm2 allocations": _allocations_table(cards[SMOLLM2]),
        "languages": _languages_table(),
        "bases": _bases_table(),
        "worlds": _worlds_table(),
        "scores of layers": _scores_table(cards[SMALL]),
    }


def _arms_table(card: Mapping[str, Any]) -> list[str]:
    head = ["arm", "seeds", "new languages", "original, reviewed", "original, not reviewed", "KL to the base, %"]
    rows = []
    for arm in card["arms"]:
        numbers = [_said(arm.get(key)) for key in ("expanded", "reviewed", "unreviewed", "kl_self")]
        rows.append([arm["arm"], str(arm["seeds"]), *numbers, _weights(arm)])
    return table([*head, "expert 0 on reviewed / not / new"], rows)


def _kin_table(card: Mapping[str, Any]) -> list[str]:
    """Return route first and what lies between it and the papers' two stages, seed by seed beside these."""
    rows = []
    for arm in (arm for arm in card["arms"] if arm["arm"] in KIN):
        numbers = [_said(arm.get(f"{role}_less_moe_lpr")) for role in ("expanded", "original")]
        rows.append([arm["arm"], *numbers, _weights(arm)])
    head = ["arm", "new, beside moe_lpr", "original, beside moe_lpr", "expert 0 on reviewed / not / new"]
    return table(head, sorted(rows, key=lambda row: KIN.index(row[0])))


def _equal_gain_table(card: Mapping[str, Any]) -> list[str]:
    rows = [
        [row["method"], row["why"] or _said(row["more"]), str(row["more"]["seeds"]), "; ".join(row["arms"])]
        for row in card["equal_gain"]
    ]
    return table(["method", "forgets more than moe_lpr by", "seeds", "its points"], rows)


def _allocations_table(card: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in card["allocations"]["rules"]:
        experts = "; ".join(" ".join(map(str, own)) for own in row["experts"])
        less = row["expanded_less_uniform"]
        apart = less["low"] is not None and (less["high"] < 0 or less["low"] > 0)
        beside = f"**{_said(less)}**" if apart else _said(less)
        rows.append(
            [row["rule"], experts, str(row["expanded"]["seeds"]), _said(row["expanded"]), _said(row["original"])]
        )
        rows[-1].append(beside)
    return table(
        ["divided by", "new experts by layer", "seeds", "new languages", "original", "new, beside uniform"], rows
    )


def _languages_table() -> list[str]:
    rows = []
    for row in _by_gain():
        facts = [row[name] for name in ("tokens_per_byte", "similarity")]
        facts = [NOT_MEASURED if fact is None else f"{fact:.2f}" for fact in facts]
        rows.append([language_name(row["language"]), _said(row["gain"]), _said(row["cost"]), *facts])
    return table(["language", "its change", "of the original languages", "tokens per byte", "similarity"], rows)


def _bases_table() -> list[str]:
    """Return the verdict on each claim by base, and over the worlds."""
    found = side_by_side()
    rows = []
    for row in found["claims"]:
        over = [SIGNS[row["over_worlds"]]] if found["worlds"] else []
        signs = [SIGNS[row["bases"][base]] for base in found["bases"]]
        rows.append([f"{row['number']}. {row['claim']}", *signs, *over])
    return table(["claim", *found["bases"], *(["over the worlds"] if found["worlds"] else [])], rows)


def _worlds_table() -> list[str]:
    """Return what each world gave of every part that was decided over worlds, and their mean."""
    found = side_by_side()
    rows = []
    for row in found["claims"]:
        for part in row["parts"]:
            over = part["over_worlds"]
            if over and over["low"] is not None:
                of_worlds = [part["bases"][world]["value"] for world in found["worlds"]]
                values = [NOT_MEASURED if value is None else points(value) for value in of_worlds]
                rows.append([f"{row['number']}. {part['text']}", *values, f"{_said(over)} {SIGNS[over['verdict']]}"])
    return table(["part", *found["worlds"], "over the worlds"], rows)


def _scores_table(card: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in card["allocations"]["scores"]:
        values = " ".join(f"{value:.3g}" for value in row["values"])
        of = row["correlation"]
        rows.append([row["score"].replace("_", " "), values, _said(of)])
    return table(["score of a layer", "by layer", "rank correlation with the gain of one expert there"], rows)


def _weights(arm: Mapping[str, Any]) -> str:
    """Return the mean weight of expert 0 on reviewed, not reviewed and new languages, those of them that there are."""
    of_roles = [arm.get(f"weight_{role}") for role in ("reviewed", "unreviewed", "expanded")]
    return " / ".join(f"{of['value']:.2f}" for of in of_roles if of) or NOT_MEASURED


def _said(of: Mapping[str, Any] | None) -> str:
    return NOT_MEASURED if of is None else points_and_ends(of["value"], of["low"], of["high"])


def page(text: str) -> str:
    """Return a page with every table that it has a place for made anew, between its two marks."""
    return with_tables(text, tables())


PAGES = (DOCS / "findings.md", DOCS / "allocation.md")

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
    for path in PAGES:
        path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
