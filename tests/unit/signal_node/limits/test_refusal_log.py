"""Lines about clients that were turned away: enough to answer who asks, not enough to fill a disk."""

from __future__ import annotations

from structlog.testing import capture_logs

from signal_node.limits.addresses import address_hash
from signal_node.limits.refusal_log import LINES, MAX_TEXT, SECONDS, RefusalLog


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_has_so_many_lines_a_minute_and_counts_the_others() -> None:
    clock = Clock()
    log = RefusalLog(clock)
    with capture_logs() as lines:
        for _ in range(3 * LINES):
            log.token_refused("192.0.2.1", "s", "the token has expired")
        log.origin_refused("192.0.2.1", "https://evil.example")
        clock.now += SECONDS
        log.token_refused("192.0.2.2", "t", "the token is not a JWT")
        log.token_refused("192.0.2.2", "t", "the token is not a JWT")
    told = [(line["event"], line["unlogged"]) for line in lines]
    assert told == [
        *[("token_refused", 0)] * LINES,
        ("origin_refused", 0),
        ("token_refused", 2 * LINES),
        ("token_refused", 0),
    ]


def test_a_line_says_who_and_why() -> None:
    log = RefusalLog(Clock())
    with capture_logs() as lines:
        log.handshake_refused("192.0.2.1", 404, "wrong path")
        log.origin_refused("192.0.2.1", "https://evil.example")
        log.token_refused("192.0.2.1", "s", "the token has expired")
    same = {"address_hash": address_hash("192.0.2.1"), "unlogged": 0, "log_level": "info"}
    assert lines == [
        {"event": "handshake_refused", "status": 404, "reason": "wrong path", **same},
        {"event": "origin_refused", "origin": "https://evil.example", **same},
        {"event": "token_refused", "session": "s", "reason": "the token has expired", **same},
    ]


def test_what_a_client_sent_is_cut() -> None:
    with capture_logs() as lines:
        RefusalLog(Clock()).origin_refused(None, "x" * 10_000)
    assert len(lines[0]["origin"]) == MAX_TEXT
