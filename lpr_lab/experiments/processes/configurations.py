"""The configuration files for `accelerate launch` that come with this package. Torch-free."""

from pathlib import Path

from lpr_lab.errors import one_of

_FOLDER = Path(__file__).parent / "accelerate"


def configuration_names() -> tuple[str, ...]:
    """Return the names of the files: `ddp`, `fsdp2`, `multi-node`."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def configuration_file(name: str) -> Path:
    """Return the path of a file by its name.

    Raises:
        UsageError: there is none, with the closest one.
    """
    one_of("configuration", name, configuration_names())
    return _FOLDER / f"{name}.yaml"
