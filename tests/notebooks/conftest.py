"""A model and texts small enough to run a whole notebook on in seconds."""

import pytest
from tiny_notebooks import write_materials


@pytest.fixture
def tiny_materials(tmp_path, tiny_model, tiny_tokenizer, sentences):
    """Return a function that writes a tiny base and shuffled sentences: `tiny_materials(languages, num_layers=2)`.

    It gives back the parameters `base` and `corpus` that lead to them.
    """

    def write(languages, *, num_layers=2, per_split=12):
        model = tiny_model("llama", num_layers=num_layers)
        return write_materials(tmp_path, model, tiny_tokenizer, sentences, languages, per_split)

    return write
