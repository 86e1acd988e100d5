"""How numbers are written, the same on every page: never rounded to all or nothing, with minus signs that are signs."""

import math

from lpr_lab.measure.significance import Difference

NOT_MEASURED = "–"
"""What stands where there is no number; never a 0."""


def percent(share: float) -> str:
    """Return a share as per cent, never rounded to all or nothing: `98%`, `99.7%`, `<0.1%`, `100%` only when it is."""
    value = 100 * float(share)
    if 0 < value < 0.1:
        return "<0.1%"
    if 99.9 < value < 100:
        return ">99.9%"
    return f"{value:.1f}%" if (0 < value < 1 or 99 < value < 100) else f"{value:.0f}%"


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, which a rounded zero has not: `−0.04`, `+1.20`, `0.00`."""
    rounded = round(float(value), digits)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.{digits}f}"


def change(value: float | None) -> str:
    """Return a change in per cent with its sign: `−21.8%`, `+0.3%`, `0.0%`."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{signed(value, 1)}%"


def points(value: float | None) -> str:
    """Return a difference of two changes, in points of per cent with its sign: `−0.04`, `+1.20`."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else signed(value, 2)


def points_and_ends(value: float | None, low: float | None, high: float | None) -> str:
    """Return points with the ends of their interval, where there is one: `−0.04 (−0.31 to +0.22)`.

    >>> points_and_ends(-0.04, -0.31, 0.22), points_and_ends(1.2, None, None)
    ('−0.04 (−0.31 to +0.22)', '+1.20')
    """
    return points(value) if low is None or high is None else f"{points(value)} ({points(low)} to {points(high)})"


def points_with_interval(found: Difference) -> str:
    """Return a paired difference in points with its interval: `−0.04 points (−0.31 to +0.22)`."""
    if not found.has_interval:
        return f"{points(found.value)} points" if not math.isnan(found.value) else NOT_MEASURED
    return f"{points(found.value)} points ({points(found.low)} to {points(found.high)})"


def interval(low: float | None, high: float | None) -> str:
    """Return the interval of a change in per cent, or a dash where there is none: `−23.0% to −20.4%`."""
    if change(low) == NOT_MEASURED or change(high) == NOT_MEASURED:
        return NOT_MEASURED
    return f"{change(low)} to {change(high)}"


def count(value: float) -> str:
    """Return a count with thin spaces between thousands: `61 440`."""
    return f"{int(value):,}".replace(",", "\u202f")


def size(num_bytes: float) -> str:
    """Return an amount of bytes with three digits: `1.05 GB`, `62.4 MB`, `3.2 kB`."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units: `48 s`, `9 min 12 s`, `3 h 5 min`, `2 days`."""
    if seconds is None or math.isnan(seconds):
        return NOT_MEASURED
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"
