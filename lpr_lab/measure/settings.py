"""What an experiment can set of its evaluation: the fields are keywords of `evaluate`, explained there. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Of `evaluate`."""

    tokens_per_language: int = 4096
    bootstrap: int = 1000
