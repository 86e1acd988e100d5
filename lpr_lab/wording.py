"""How counts are worded."""


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts, one or many of it.

    Args:
        number: how many; thousands are set apart.
        noun: for one of them, with a plural in -s.

    >>> counted(1, "run"), counted(0, "text"), counted(1234, "new expert")
    ('1 run', '0 texts', '1,234 new experts')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
