"""Times in a form for people."""

from datetime import UTC, datetime


def age(ms: float) -> str:
    """A duration in its two largest units: `850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`."""
    seconds = max(0, round(ms / 1_000))
    if ms < 1_000:
        return f"{max(0, round(ms))} ms"
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3_600} h"


def clock(ms: int) -> str:
    """A time of day in UTC, with milliseconds."""
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{ms % 1_000:03d}"
