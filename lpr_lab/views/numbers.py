"""How numbers are written, the same on every page: never rounded to all or nothing, with minus signs that are signs."""

import math

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


def change(value: float | None) -> str:
    """Return a change in per cent with its sign: `−21.8%`, `+0.3%`, `0.0%`."""
    if value is None or math.isnan(value):
        return NOT_MEASURED
    rounded = round(float(value), 1)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}%"


def count(value: float) -> str:
    """Return a count with thin spaces between thousands: `61 440`."""
    return f"{int(value):,}".replace(",", "\u202f")


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
