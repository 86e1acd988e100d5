"""The one name that each setting has for people, wherever in an experiment it lies."""

from collections.abc import Iterable
from dataclasses import fields

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.method.settings import ExpandSettings, ReviewSettings, UpcycleSettings


def names_of(settings: type) -> dict[str, str]:
    """Return every field of a settings class, named as it is."""
    return {field.name: field.name for field in fields(settings)}


FLAT: dict[str, dict[str, str]] = {
    "similarity": {"similarity_tokens": "tokens_per_language", "similarity_state": "state"},
    "scores": {"score_tokens": "tokens_per_language", "score_neuron_share": "neuron_share"},
    "upcycle": names_of(UpcycleSettings),
    "fit": {f"fit_{name}": name for name in ("solver", "divide", "tokens_per_language")},
    "expand": names_of(ExpandSettings),
    "review": names_of(ReviewSettings),
    "finetune": {"baseline": "kind", "finetune_replay_share": "replay_share"}
    | {
        name: name
        for name in (
            *("lora_rank", "lora_experts", "added_blocks", "frozen_share", "neuron_share", "calibration_tokens"),
            "interpolation_weight",
        )
    },
    "evaluate": {"eval_tokens_per_language": "tokens_per_language", "bootstrap": "bootstrap"},
    "self_divergence": {"self_samples": "count", "self_sample_tokens": "tokens"},
    "asked": {"tasks": "tasks", "task_items": "items_per_language", "task_prompts": "prompts_per_language"},
    "alerts": {f"alert_{name}": name for name in ("least_load", "steps", "forgetting_percent")},
}
"""Per part of an experiment, the flat name of each setting and the name that the part itself has for it."""


def refuse_unknown(names: Iterable[str], known: Iterable[str], within: str = "") -> None:
    """Refuse the first name that is none of those known, with the closest one.

    Raises:
        UsageError: there is such a name.
    """
    for name in names:
        if name not in known:
            raise UsageError(f"There is no setting {within + name!r}.{did_you_mean(name, known)}")
