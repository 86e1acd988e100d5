"""The 22 claims of MoE-LPR and LayerMoE that can be checked at a small scale, as data.

Bits per byte stand in for the papers' benchmarks: a fall on an expanded language is a gain, a rise on an original one
is forgetting, both in per cent of the base's bits per byte, so that differences are points. A claim is cut into parts
(`parts`).
"""

from itertools import pairwise

from lpr_lab.runs.scorecard.equal_gain import arms_of
from lpr_lab.runs.scorecard.parts import ABOUT_EQUAL, EXACT, MIN_LAYERS, Claim, Part, Term

LPR, NO_LPR, FULL = "moe_lpr", "review_without_lpr", "full_replay"
SLOW = f"{FULL}, tenth of the rate"
"""Full fine-tuning at a rate that forgets little: an arm at one rate alone says nothing of its method."""
STAGE1, STAGE2 = "G1 expand", "G1 review"


def _less(text: str, one: str, other: str, role: str, **limits: float) -> Part:
    """Return the part that the bits per byte of `one` change by less than those of `other`."""
    return Part(text, (Term(one, role), Term(other, role, -1.0)), **{"below": 0.0, **limits})  # type: ignore[arg-type]


def _equal(text: str, one: str, other: str, role: str) -> Part:
    return _less(text, one, other, role, above=-ABOUT_EQUAL, below=ABOUT_EQUAL)


def _not_worse(text: str, one: str, other: str, role: str, min_layers: int = 0) -> Part:
    return Part(text, (Term(one, role), Term(other, role, -1.0)), below=ABOUT_EQUAL, min_layers=min_layers)


_STAGE1_FORGETS = Part("Original languages get worse in stage 1.", (Term(LPR, "original", 1.0, STAGE1),), above=0.0)


def _half_recovered(text: str, arm: str) -> Part:
    return Part(text, (Term(arm, "reviewed"), Term(arm, "reviewed", -0.5, STAGE1)), below=0.0, premise=_STAGE1_FORGETS)


def _weight(text: str, one: tuple[str, str], other: tuple[str, str], role: str, **limits: float) -> Part:
    terms = tuple(Term(arm, role, sign, stage, "weight") for (arm, stage), sign in ((one, 1.0), (other, -1.0)))
    return Part(text, terms, **limits)  # type: ignore[arg-type]


_ORDER_OF_FORGETTING = ("lora_moe", "llama_pro", "sparse_moe", FULL, "lora")

CLAIMS: tuple[Claim, ...] = (
    Claim(1, "Before training the expanded model computes what the base computes.", "by construction", EXACT),
    Claim(
        2,
        "Stage 1 changes new experts and routers alone, stage 2 routers and classifiers alone.",
        "by construction",
        EXACT,
    ),
    Claim(
        3,
        "The balance loss is 1 at uniform routing, whatever the number of experts; with as many experts as are chosen "
        "it is constant.",
        "eq. 4-8",
        EXACT,
    ),
    Claim(
        4,
        "Without original tokens the LPR loss is 0; with all weight on expert 0 it is at its floor.",
        "eq. 9-11",
        EXACT,
    ),
    Claim(
        5,
        "The allocation rule gives the published lists; mean unit vectors give the mean over all pairs.",
        "48 and 96 experts",
        EXACT,
    ),
    Claim(6, "Where a classifier says “original”, the layer computes what the base's does.", "by construction", EXACT),
    Claim(7, "A second expansion leaves the base and the first group as they were.", "by construction", EXACT),
    Claim(
        8,
        "Stage 1 raises the new languages a lot and, without a review, forgets the old ones.",
        "+10.7 new, -6.8 old (score)",
        parts=(
            Part("Expanded languages gain in stage 1.", (Term(LPR, "expanded", 1.0, STAGE1),), below=0.0),
            _STAGE1_FORGETS,
            Part(
                "By more than the same training on original text makes them (the old-only control).",
                (Term(LPR, "original", 1.0, STAGE1), Term("old-only", "original", -1.0, STAGE1)),
                above=0.0,
            ),
        ),
    ),
    Claim(
        9,
        "A review of routers gives most of the old languages' loss back, at next to no cost for the new ones.",
        "61 % without LPR, 73 % with; new ±0.1",
        parts=(
            _half_recovered("More than half comes back without the LPR loss.", NO_LPR),
            _half_recovered("More than half comes back with it.", LPR),
            Part(
                f"The new languages lose less than {ABOUT_EQUAL:g} point by it.",
                (Term(LPR, "expanded"), Term(LPR, "expanded", -1.0, STAGE1)),
                below=ABOUT_EQUAL,
            ),
        ),
    ),
    Claim(
        10,
        "The LPR loss makes the review better, on original languages that it reads and on those that it does not.",
        "+0.80 reviewed, +1.03 unreviewed; new -0.06",
        parts=(
            _less("Better than without it on reviewed originals.", LPR, NO_LPR, "reviewed"),
            _less("Better than without it on unreviewed originals.", LPR, NO_LPR, "unreviewed"),
            _not_worse(f"It costs new languages less than {ABOUT_EQUAL:g} point.", LPR, NO_LPR, "expanded"),
        ),
    ),
    Claim(
        11,
        "Expert 0 gets more of the original tokens by the review, most with LPR; new languages' routing stays.",
        "curves by layer",
        parts=(
            _weight("More after a review without LPR.", (NO_LPR, ""), (NO_LPR, STAGE1), "reviewed", above=0.0),
            _weight("Still more with LPR.", (LPR, ""), (NO_LPR, ""), "reviewed", above=0.0),
            _weight(
                "On new languages it moves by less than 0.1.",
                (LPR, ""),
                (LPR, STAGE1),
                "expanded",
                above=-0.1,
                below=0.1,
            ),
        ),
    ),
    Claim(
        12,
        "Of all methods MoE-LPR forgets least: then LoRAMoE, LLaMA-Pro, MoE, full fine-tuning, LoRA.",
        "96.6 > 94.9 > 94.5 > 93.5 > 92.1 > 82.3 % of the base's score",
        parts=(
            *(_less(f"MoE-LPR forgets less than {arm}.", LPR, arm, "original") for arm in _ORDER_OF_FORGETTING),
            *(
                _less(f"{one} forgets less than {other}.", one, other, "original")
                for one, other in pairwise(_ORDER_OF_FORGETTING)
            ),
            _less("MoE-LPR forgets less than full_replay at a tenth of its rate.", LPR, SLOW, "original"),
            # Read where MoE-LPR is, for its own gain hardly depends on its rate.
            Part("MoE-LPR forgets less than full_replay at equal gain.", curves=((LPR,), arms_of(FULL)), below=0.0),
        ),
    ),
    Claim(
        13,
        "MoE-LPR gains most on the new languages; then LoRAMoE and MoE, full fine-tuning and LLaMA-Pro; LoRA loses.",
        "45.07 > 42.37, 42.25 > 41.12, 41.10 > base 34.36 > LoRA 33.02",
        parts=(
            *(
                _less(f"MoE-LPR gains more than {arm}.", LPR, arm, "expanded")
                for arm in ("lora_moe", "sparse_moe", FULL, "llama_pro")
            ),
            _less("MoE-LPR gains more than full_replay at a tenth of its rate.", LPR, SLOW, "expanded"),
            Part("MoE-LPR gains.", (Term(LPR, "expanded"),), below=0.0),
            Part("LoRA of rank 8 makes them worse than the base.", (Term("lora", "expanded"),), above=0.0),
        ),
    ),
    Claim(
        14,
        "Frozen original experts do not limit learning: MoE-LPR gains more than a mixture of which everything learns.",
        "45.07 against 42.25",
        parts=(_less("MoE-LPR gains more than sparse_moe.", LPR, "sparse_moe", "expanded"),),
    ),
    Claim(
        15,
        "Experts that start as copies learn the new languages better than random ones.",
        "45.07 against 38.37",
        parts=(_less("Copies gain more.", LPR, "no_copy", "expanded"),),
    ),
    Claim(
        16,
        "More experts gain more on the new languages and forget no more.",
        "2 to 8 experts, a figure",
        parts=(
            _less("2 new experts gain more than 1.", "2 experts", LPR, "expanded"),
            _less("5 new experts gain more than 2.", "5 experts", "2 experts", "expanded"),
            _not_worse(
                f"5 forget less than {ABOUT_EQUAL:g} point more than 1.",
                "5 experts",
                LPR,
                "original",
            ),
        ),
    ),
    Claim(
        17,
        "More review helps the original languages, ever less; the new ones lose slightly.",
        "flat beyond 50k documents",
        parts=(
            _less("The whole review forgets less than a quarter of it.", LPR, "quarter of the review", "reviewed"),
            Part(
                "Three times as much adds less than the first three quarters did.",
                (
                    Term("three times the review", "reviewed"),
                    Term(LPR, "reviewed", -2.0),
                    Term("quarter of the review", "reviewed"),
                ),
                above=0.0,
            ),
            _not_worse(
                f"New languages lose less than {ABOUT_EQUAL:g} point from a quarter to three times.",
                "three times the review",
                "quarter of the review",
                "expanded",
            ),
        ),
    ),
    Claim(
        18,
        "One stage does as well as two on languages that it reads, and worse on unreviewed originals.",
        "45.38, 51.90 against 45.07, 52.12; unreviewed 43.71 against 45.25",
        parts=(
            _equal("The same on new languages.", "one_stage", LPR, "expanded"),
            _equal("The same on reviewed originals.", "one_stage", LPR, "reviewed"),
            _less("Two stages are better on unreviewed originals.", LPR, "one_stage", "unreviewed"),
        ),
    ),
    Claim(
        19,
        "Languages are most alike in the middle layers.",
        ".116 in the middle, .035 at the ends (Llama-3.2-3B)",
        parts=(
            Part(
                "Similarity in the middle third is above that of the other layers.",
                (Term("layer_moe", "", measure="hump"),),
                above=0.0,
                min_layers=MIN_LAYERS,
            ),
        ),
    ),
    Claim(
        20,
        "LayerMoE is as good with 2 new experts per layer as a uniform 5; inverse and random allocations are worse.",
        "48 against 120 experts",
        parts=(
            _not_worse(
                "Not worse than a uniform 5 on new languages.", "layer_moe", "5 experts", "expanded", MIN_LAYERS
            ),
            _not_worse("Nor on original ones.", "layer_moe", "5 experts", "original", MIN_LAYERS),
            _not_worse(
                "Not worse than a uniform 2 on new languages.",
                "layer_moe, no classifier",
                "2 experts",
                "expanded",
                MIN_LAYERS,
            ),
            _less(
                "Gains more than the inverse allocation.",
                "layer_moe, no classifier",
                "layer_moe, inverse",
                "expanded",
                min_layers=MIN_LAYERS,
            ),
            _less(
                "Gains more than a random one.",
                "layer_moe, no classifier",
                "layer_moe, random",
                "expanded",
                min_layers=MIN_LAYERS,
            ),
        ),
    ),
    Claim(
        21,
        "Classifiers in the layers where languages are most alike help the original ones and leave the new ones.",
        "table not at hand",
        parts=(
            _less("Better on originals than without.", "layer_moe", "layer_moe, no classifier", "original"),
            _equal("The same on new languages.", "layer_moe", "layer_moe, no classifier", "expanded"),
            Part(
                "They tell old from new in more than 95 % of tokens.",
                (Term("layer_moe", "", measure="classifier"),),
                above=0.95,
            ),
        ),
    ),
    Claim(
        22,
        "A second group of languages leaves the base's and the first group's about where they were.",
        "96 against 144 experts; table not at hand",
        parts=(
            Part(
                "The base's languages lose less than 2 points by the second group.",
                (Term("second group", "original"), Term("second group", "original", -1.0, STAGE2)),
                below=2.0,
            ),
            Part(
                "The first group loses less than 2 points.",
                (Term("second group", "earlier"), Term("second group", "earlier", -1.0, STAGE2)),
                below=2.0,
            ),
        ),
    ),
)
"""In the order of docs/paper_map.md; `papers` are scores of benchmarks at 1.8 B parameters."""
