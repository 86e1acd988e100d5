"""Which tasks there are: what each asks, its chance level, and what its number means. Torch-free."""

from dataclasses import dataclass

NUM_CHOICES = 4
"""Continuations to choose from, the true one among them."""


@dataclass(frozen=True)
class Task:
    """A task, in words.

    Attributes:
        title: what it is called for people.
        chance: how often someone who knows nothing is right, in [0, 1]; None where there is no such level.
        meaning: what is asked, and how to read the number.
        margin: what the margin of an item is, above zero where the answer is right; empty where there is none.
    """

    title: str
    chance: float | None
    meaning: str
    margin: str = ""


TASKS = {
    "choice": Task(
        "continuation choice",
        1 / NUM_CHOICES,
        f"A passage breaks off, and the model chooses its true continuation among {NUM_CHOICES} of about the same "
        "length from the same language: the one of which it needs the fewest bits per byte. The items are translations "
        "of one another in all languages. It is made from this text and is no published benchmark.",
        "bits per byte that the best wrong continuation needs more than the true one",
    ),
    "inflection": Task(
        "minimal pairs of inflection",
        1 / 2,
        "A sentence, and the same sentence with one word in another form of the same lemma; right where the model "
        "finds the sentence as it was written likelier. Every two forms are asked both ways round, so a model that "
        "prefers a form whatever stands around it is right in half. At times both forms are possible, so nobody "
        "reaches 100 %.",
        "bits by which the sentence as it was written is likelier",
    ),
    "script": Task(
        "own script",
        None,
        "The model goes on from a passage; right where at most a tenth of the letters it writes are not of the "
        "language's script.",
    ),
    "language": Task(
        "own language",
        None,
        "The model goes on from a passage; right where the letter triples of what it writes look more like this "
        "language than like any other that was evaluated.",
    ),
    "no_repetition": Task(
        "no repetition",
        None,
        "The model goes on from a passage; right where it does not go round in circles (one to three words, three "
        "times or more).",
    ),
}
"""By name, in the order in which they are shown."""

GENERATED = ("script", "language", "no_repetition")
"""Checks of one and the same generated text."""

NAMES = ("choice", "inflection", "generation")
"""What can be asked for; `generation` is all of `GENERATED`."""

PEOPLE = "people"
"""Who wrote the true continuations: what the checks of generated text say of them is what can be reached."""
