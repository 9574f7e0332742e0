"""The limits of a client, and its sources of time and randomness."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """Every limit of the SDK. Durations are in seconds.

    A connection without an answer to pings for twice `ping_interval` is dropped. `proxy` is the URL of a proxy, True
    for the one of the environment (`HTTPS_PROXY`, `ALL_PROXY`, …), None for no proxy. Tests replace `uniform(low,
    high)`, `clock` (monotonic) and `sleep`.
    """

    first_connect_timeout: float = 30.0
    connect_timeout: float = 10.0
    request_timeout: float = 10.0
    close_timeout: float = 2.0
    ping_interval: float = 7.0
    backoff_base: float = 0.25
    backoff_cap: float = 10.0
    stable_after: float = 5.0
    signals_waiting: int = 256
    signal_bytes_waiting: int = 4 * 1024 * 1024
    chats_waiting: int = 256
    events_waiting: int = 1024
    messages_kept: int = 1000
    max_frame_bytes: int = 8 * 1024 * 1024
    proxy: str | Literal[True] | None = True
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
