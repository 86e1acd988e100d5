"""Results of an expansion, and what the command line says of them in words."""

RESULTS = {
    "schema_version": 1,
    "recipe": "route_first",
    "base": "smollm2-135m",
    "original": ["en", "es"],
    "expanded": ["el"],
    "change": [
        {"dataset": dataset, "language": code, "role": role, "before": before, "after": after}
        | {"change_percent": 100 * (after / before - 1), "ci_low": -1.0, "ci_high": 2.0}
        for dataset in ("dev", "heldout")
        for code, role, before, after in (
            ("en", "original", 1.5, 1.515),
            ("es", "original", 2.0, 2.0),
            ("el", "expanded", 2, 1.5),
        )
    ],
    "routing": {
        "original_weight": [
            {"dataset": "heldout", "language": "en", "role": "original", "original_weight": 0.98},
            {"dataset": "heldout", "language": "es", "role": "original", "original_weight": 0.97},
            {"dataset": "heldout", "language": "el", "role": "expanded", "original_weight": 0.01},
        ]
    },
    "claims": [{"name": "gain", "holds": True}, {"name": "base_untouched", "holds": False}],
}
SECONDS = {"prepare": 30.0, "expand": 500.0}
IN_WORDS = """\
smollm2-135m, which knew English and Spanish, was taught Greek in 9 minutes (recipe route_first).
Taught, in bits per byte of held-out text: Greek 2.000 → 1.500 (−25.0 %, no clear difference, \
95 % interval −1.0 % to +2.0 %).
Known before, in the same: English 1.500 → 1.515 (+1.0 %, no clear difference, 95 % interval −1.0 % to +2.0 %), \
Spanish 2.000 → 2.000 (+0.0 %, no clear difference, 95 % interval −1.0 % to +2.0 %).
Weight of the original expert there: English 0.98, Spanish 0.97; Greek 0.01.
1 of the 2 things the method promises hold; not: base untouched.
"""
