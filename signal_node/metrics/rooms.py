"""Metrics of rooms and of calls."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from keepline.room.record import ChatMode, EndReason, Status
from signal_node.app import App
from signal_node.metrics.families import counter, histogram


def rooms(app: App) -> Iterator[Metric]:
    """Rooms and their commits."""
    rooms, found = app.rooms.cache, app.rooms.gauges.counts
    shown = GaugeMetricFamily(
        "keepline_rooms",
        "Rooms with at least one member present, each counted by one node, every 5 s.",
        labels=["status", "mode"],
    )
    for status in (Status.ACTIVE, Status.GRACE):
        for mode in ChatMode:
            shown.add_metric([status.value, mode.value], found[(status.value, mode.value)])
    yield shown
    yield GaugeMetricFamily("keepline_cached_rooms", "Rooms with a side on this node.", value=len(rooms))
    yield GaugeMetricFamily(
        "keepline_journal_length", "Changes that are not stored yet.", value=rooms.waiting
    )
    counts = rooms.counts
    yield counter(
        "keepline_commits",
        "Attempts to store a change of a room.",
        "result",
        {
            "done": counts.commits,
            "conflict": counts.conflicts,
            "refused": counts.refused,
        },
    )
    yield CounterMetricFamily(
        "keepline_commit_batches_failed",
        "Batches of changes that did not reach Redis; the changes are retried.",
        value=counts.unavailable,
    )
    yield histogram("keepline_commit_seconds", "Time that a batch of commits took in Redis.", counts.seconds)
    yield CounterMetricFamily(
        "keepline_notice_gaps", "Notices that revealed a missed notice.", value=counts.gaps
    )
    compared = app.rooms.reconciler.counts
    yield CounterMetricFamily(
        "keepline_rooms_caught_up",
        "Rooms that were behind Redis when they were compared.",
        value=compared.caught_up,
    )
    yield CounterMetricFamily(
        "keepline_rooms_put_back",
        "Rooms written back after Redis had lost them.",
        value=compared.put_back,
    )
    yield CounterMetricFamily(
        "keepline_rooms_unreadable",
        "Rooms whose record or chat in Redis could not be read.",
        value=app.rooms.store.reader.unreadable,
    )


def calls(app: App) -> Iterator[Metric]:
    """How calls go."""
    calls, offer_outcomes = app.rooms.call_counts.counts, app.signals.offer_outcomes
    offer_outcomes.give_up()
    offers = offer_outcomes.counts
    opened = {mode.value: calls.opened[mode.value] for mode in ChatMode}
    yield counter("keepline_rooms_opened", "Opened rooms.", "mode", opened)
    ended = CounterMetricFamily("keepline_rooms_ended", "Ended rooms.", labels=["reason", "mode"])
    for reason in EndReason:
        for mode in ChatMode:
            ended.add_metric([reason.value, mode.value], calls.ended[(reason.value, mode.value)])
    yield ended
    yield CounterMetricFamily(
        "keepline_calls_met",
        "Rooms in which both members were present for the first time.",
        value=calls.met,
    )
    yield histogram(
        "keepline_meeting_seconds", "How long the first member waited for the second.", calls.meeting
    )
    yield counter(
        "keepline_absences",
        "Lost sides, by outcome of the absence.",
        "outcome",
        {"returned": calls.returned, "expired": calls.expired, "ended": calls.ended_meanwhile},
    )
    yield histogram("keepline_absence_seconds", "How long sides that returned were absent.", calls.absence)
    yield counter(
        "keepline_offers",
        "Offers, by outcome of the negotiation.",
        "outcome",
        {
            "answered": offers.answered,
            "unanswered": offers.unanswered,
            "superseded": offers.superseded,
            "interrupted": offers.interrupted,
        },
    )
    yield histogram(
        "keepline_answer_seconds", "Time from relaying an offer to relaying its answer.", offers.seconds
    )
