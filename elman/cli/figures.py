"""Numbers as people write them."""

from __future__ import annotations

from typing import Any


def figure(value: Any, digits: int = 4) -> str:
    """A value as people write it: 1,234.5 → 1,234 with four digits, 176.0 → 176, True → yes.

    Whole digits are never cut off up to a million; beyond, and below 0.0001, powers of ten stand.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:,.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: 1:05, 2:03:09."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
