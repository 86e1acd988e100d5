"""Names in the folder of a baseline, for what reads them without torch."""

BASELINE = "baseline.json"
"""Says what a saved baseline is, and on which base."""
FINETUNE = "finetune"
"""Name of the one stage that a baseline has."""
