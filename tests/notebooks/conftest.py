"""A model and texts small enough to run a whole notebook on in seconds."""

import pytest

from helpers import warm
from helpers.tiny_notebooks import write_materials


@pytest.fixture(autouse=True)
def warm_kernels(request, monkeypatch):
    """Start kernels with the libraries imported; those of commands in processes of their own start as ever."""
    if request.node.get_closest_marker("notebook"):
        import torch
        from jupyter_client.provisioning import local_provisioner

        if not torch.cuda.is_available():
            monkeypatch.setattr(local_provisioner, "launch_kernel", warm.launch_kernel)


@pytest.fixture
def tiny_materials(tmp_path, tiny_model, tiny_tokenizer, sentences):
    """Return a function that writes a tiny base and shuffled sentences: `tiny_materials(languages, num_layers=2)`.

    It gives back the parameters `base` and `corpus` that lead to them.
    """

    def write(languages, *, num_layers=2, per_split=12):
        model = tiny_model("llama", num_layers=num_layers)
        return write_materials(tmp_path, model, tiny_tokenizer, sentences, languages, per_split)

    return write


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory, tiny_model, tiny_tokenizer, sentences):
    """Return a folder of runs with one finished expansion of two stages, which every test here may look at."""
    from lpr_lab.experiments import pipeline, recipes
    from lpr_lab.experiments.config import StageBudget

    folder = tmp_path_factory.mktemp("finished")
    experiment = recipes.moe_lpr(
        **write_materials(folder, tiny_model("llama"), tiny_tokenizer, sentences, ("en", "el", "ar"), 12),
        original=("en",),
        expanded=("el", "ar"),
        new_experts_per_layer=2,
        stage1=StageBudget(tokens=2048),
        stage2=StageBudget(tokens=1024),
        eval_tokens_per_language=512,
        precision="fp32",
    )
    pipeline.run(experiment, root=folder / "runs")
    return folder / "runs"
