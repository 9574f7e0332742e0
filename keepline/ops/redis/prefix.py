"""The prefix of all keys and channels, as a setting."""

from __future__ import annotations

import string

from keepline.room import keys

NONE = "none"
_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-:")


def check(prefix: str) -> str:
    """Return the prefix for a setting; empty for `none`. Raises ValueError."""
    if prefix == NONE:
        return ""
    if not prefix.endswith(":") or not 2 <= len(prefix) <= 64 or not _CHARACTERS.issuperset(prefix):
        raise ValueError(
            "should be letters, digits, dots, hyphens and colons with a colon at the end, such as"
            f" {keys.DEFAULT_PREFIX}, or {NONE}"
        )
    return prefix
