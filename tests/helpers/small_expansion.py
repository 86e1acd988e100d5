"""A finished run that has a model, made at once: experts drawn, nothing trained."""

from pathlib import Path
from typing import Any

import torch

from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.formats.save_load import save_expansion
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import enter_stage, set_trainable
from lpr_lab.runs.run import Run


@torch.no_grad()
def shake(model: PeftModel) -> PeftModel:
    """Move new experts and routers away from where they start."""
    set_trainable(model, experts=True, routers=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def make_expansion(
    root: Path,
    base: Any,
    tokenizer: Any,
    *,
    new_experts: tuple[int, ...] = (1, 1),
    classifiers: tuple[int, ...] = (),
    classifier_input: str = "token",
    **settings: Any,
) -> tuple[Run, PeftModel]:
    """Return a run with the stages `G1 expand` and `G1 review`, its base in a folder beside the runs; and its model.

    Further keywords are settings of the run.
    """
    folder = root / "bases" / "tiny"
    base.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    base.name_or_path = base.config._name_or_path = str(folder)
    model = shake(upcycle(base, new_experts))
    enter_stage(model, "expand")
    shake(model)
    enter_stage(model, "review", classifiers=classifiers, classifier_input=classifier_input)
    shake(model)
    config = {"base": str(folder), "corpus": "tiny", "original": ["en"], "expanded": ["el", "hu"]} | settings
    run = Run.create(root / "runs", kind="expand", slug="el hu", title="A small expansion", config=config)
    save_expansion(model, run.paths.checkpoint)
    run.finish({})
    return run, model
