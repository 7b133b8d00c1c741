"""Numbers as people read them: short, and the same on the terminal and in a report."""

import math
from datetime import UTC, datetime


def figure(value: float) -> str:
    """Four digits at most behind the leading zeros; whole numbers whole, with thousands apart."""
    if not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}%"


def count(number: int) -> str:
    """Such as 815, 36.7M, 1.38B."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """Such as 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def dollars(amount: float) -> str:
    """To the cent, and less than one as such."""
    return f"${amount:,.2f}" if amount >= 0.01 else "< $0.01"


def moment(unix_time: float) -> str:
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%d %H:%M} UTC"
