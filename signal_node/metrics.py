"""The node's metrics, read from plain numbers during a scrape, so that counting costs the relay only an addition.

`docs/metrics.md` lists them, and a test compares the two. No label contains a room or a user.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from keepline.ops.metrics import Timings
from keepline.room.record import ChatMode, EndReason, Status
from signal_node.app import App
from signal_node.protocol.close_codes import CLOSES
from signal_node.protocol.error_codes import ErrorCode
from signal_node.signaling.admission_queue import Line
from signal_node.transport.listener import Listener

_ENDS = ("client", "lost", "handshake", *(str(close.code) for close in CLOSES))


class NodeCollector(Collector):
    """The node's counters. Values that did not occur yet are reported as 0, so that rates see the first one."""

    def __init__(self, app: App, listener: Listener) -> None:
        self._app = app
        self._listener = listener

    def describe(self) -> Iterator[Metric]:
        """Describe nothing in advance; a test checks the names of all metrics of a program together."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The current metrics."""
        yield from self._signals()
        yield from self._calls()
        yield from self._rooms()
        yield from self._clients()
        yield from self._bus()
        yield from self._cluster()

    def _signals(self) -> Iterator[Metric]:
        counts = self._app.signals.relay.counts
        yield _counter(
            "keepline_signals",
            "Frames between peers, by path.",
            "path",
            {
                "here": counts.relayed_here,
                "across": counts.relayed_across,
                "received": counts.received_across,
                "dropped": counts.dropped + self._app.signals.outbox.dropped,
                "slow": counts.slow,
            },
        )
        yield _histogram(
            "keepline_relay_seconds",
            "Time from decoding a frame to writing it to a peer on the same node; sampled.",
            counts.seconds,
        )
        yield _histogram(
            "keepline_internode_latency_seconds",
            "Time from decoding a frame on another node to unpacking it here; sampled.",
            self._app.signals.inbox.latency,
        )

    def _calls(self) -> Iterator[Metric]:
        calls, offer_outcomes = self._app.rooms.call_counts.counts, self._app.signals.offer_outcomes
        offer_outcomes.give_up()
        offers = offer_outcomes.counts
        opened = {mode.value: calls.opened[mode.value] for mode in ChatMode}
        yield _counter("keepline_rooms_opened", "Opened rooms.", "mode", opened)
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
        yield _histogram(
            "keepline_meeting_seconds", "How long the first member waited for the second.", calls.meeting
        )
        yield _counter(
            "keepline_absences",
            "Lost sides, by outcome of the absence.",
            "outcome",
            {"returned": calls.returned, "expired": calls.expired, "ended": calls.ended_meanwhile},
        )
        yield _histogram(
            "keepline_absence_seconds", "How long sides that returned were absent.", calls.absence
        )
        yield _counter(
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
        yield _histogram(
            "keepline_answer_seconds", "Time from relaying an offer to relaying its answer.", offers.seconds
        )

    def _rooms(self) -> Iterator[Metric]:
        rooms, found = self._app.rooms.cache, self._app.rooms.gauges.counts
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
        yield _counter(
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
        yield _histogram(
            "keepline_commit_seconds", "Time that a batch of commits took in Redis.", counts.seconds
        )
        yield CounterMetricFamily(
            "keepline_notice_gaps", "Notices that revealed a missed notice.", value=counts.gaps
        )
        compared = self._app.rooms.reconciler.counts
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
            value=self._app.rooms.store.reader.unreadable,
        )

    def _clients(self) -> Iterator[Metric]:
        clients, logins = self._app.connections, self._app.clients.login.counts
        yield GaugeMetricFamily(
            "keepline_connections", "Open client connections, before and after login.", value=len(clients)
        )
        yield CounterMetricFamily(
            "keepline_connections_opened", "Successful WebSocket handshakes.", value=clients.opened_ones
        )
        yield _counter(
            "keepline_connections_closed",
            "Closed connections, by end: the code of our close, client (closed first), lost, or handshake (failed).",
            "end",
            {end: clients.closed_ones[end] for end in _ENDS},
        )
        yield _counter(
            "keepline_logins",
            "Checked tokens, by result.",
            "result",
            {"ok": logins.accepted, "refused": logins.refused},
        )
        yield _counter(
            "keepline_resumes",
            "Logins with a resume secret, by outcome.",
            "outcome",
            {
                "resumed": logins.resumed,
                "stale": logins.stale,
                "outdated": logins.outdated,
                "unavailable": logins.resume_unavailable,
            },
        )
        admission = self._app.admission
        yield GaugeMetricFamily(
            "keepline_hellos_full",
            "Whether so many hellos wait that a new one is told to retry later.",
            value=admission.queue.is_full(Line.NEW),
        )
        yield CounterMetricFamily(
            "keepline_hellos_postponed",
            "Hellos and joins that were told to retry later because they could not be served in time.",
            value=admission.counts.postponed,
        )
        yield CounterMetricFamily(
            "keepline_handshakes_postponed",
            "Sockets that were told to retry later, unread.",
            value=admission.counts.handshakes,
        )
        waited = HistogramMetricFamily(
            "keepline_hello_wait_seconds", "How long hellos and joins waited in the queue."
        )
        admission.counts.waited.add_to(waited)
        yield waited
        yield CounterMetricFamily(
            "keepline_replaced",
            "Connections closed because their user connected again.",
            value=self._app.rooms.sessions.replaced_ones,
        )
        yield _counter(
            "keepline_errors",
            "Error frames sent to clients, by code.",
            "code",
            {code.value: clients.errors[code] for code in ErrorCode},
        )
        limits = self._app.limits.refusals.counts
        yield _counter(
            "keepline_limited",
            "Refusals because an address reached a limit, by limit.",
            "limit",
            {"connections": limits.connections, "logins": limits.logins, "login_rate": limits.login_rate},
        )
        sockets = self._app.limits.sockets
        yield _counter(
            "keepline_sockets_refused",
            "Sockets that were closed at accept, or could not be accepted, by reason.",
            "reason",
            {
                "address": sockets.refused["address"],
                "full": sockets.refused["full"],
                "descriptors": self._listener.short,
                "before_hello": clients.strangers.dropped,
            },
        )
        yield GaugeMetricFamily(
            "keepline_connections_before_hello",
            "Connections that have not said hello.",
            value=len(clients.strangers),
        )
        yield GaugeMetricFamily(
            "keepline_sockets", "Client sockets, counted from accept on.", value=sockets.count
        )
        waiting = self._listener.waiting
        yield GaugeMetricFamily("keepline_backlog", "Accepted sockets that are not read yet.", value=waiting)
        yield GaugeMetricFamily(
            "keepline_sockets_limit", "Maximum number of client sockets.", value=sockets.limit
        )
        yield CounterMetricFamily(
            "keepline_reads_paused",
            "Times that a connection was not read for a while because it, or its address, exceeded its work budget.",
            value=clients.turns.pauses,
        )
        yield CounterMetricFamily(
            "keepline_stalled_seconds",
            "Time in which the node read nothing, in stalls of more than 0.2 s.",
            value=clients.stalls.total_seconds,
        )
        yield GaugeMetricFamily(
            "keepline_turn_configured",
            "Whether clients are given a TURN server.",
            value=bool(self._app.ice.turn_urls),
        )
        turn_up = GaugeMetricFamily(
            "keepline_turn_up",
            "Whether a TURN server gave this node a relay in its last check.",
            labels=["url"],
        )
        for url, up in self._app.turn.up.items():
            turn_up.add_metric([url], up)
        yield turn_up

    def _bus(self) -> Iterator[Metric]:
        inbox, outbox = self._app.signals.inbox, self._app.signals.outbox
        yield GaugeMetricFamily(
            "keepline_inbox_silent",
            "Whether nothing has arrived through this node's inbox for 3 s.",
            value=inbox.health.silent,
        )
        yield CounterMetricFamily(
            "keepline_inbox_silent_seconds",
            "Time for which this node's inbox was silent.",
            value=inbox.health.silent_seconds,
        )
        yield CounterMetricFamily(
            "keepline_inbox_gaps", "Packets from other nodes that were missed.", value=inbox.gaps
        )
        yield CounterMetricFamily(
            "keepline_bus_packets", "Packets sent to other nodes.", value=outbox.packets
        )
        yield GaugeMetricFamily(
            "keepline_bus_queued", "Frames waiting to be sent to other nodes.", value=outbox.queued
        )

    def _cluster(self) -> Iterator[Metric]:
        app, cluster = self._app, self._app.cluster
        yield GaugeMetricFamily(
            "keepline_nodes", "Live nodes, as this one sees them.", value=len(cluster.view.live)
        )
        yield CounterMetricFamily(
            "keepline_nodes_buried",
            "Dead nodes for which this node released the last sides.",
            value=cluster.burial.buried,
        )
        yield GaugeMetricFamily(
            "keepline_crowded",
            "Whether the node is still letting in a crowd: hellos have waited, or were told to retry later.",
            value=app.admission.crowding.crowded(app.around.loop.time()),
        )
        yield GaugeMetricFamily(
            "keepline_hellos_waiting",
            "Hellos without an answer yet.",
            value=app.admission.crowding.waiting,
        )
        yield GaugeMetricFamily(
            "keepline_graces_extended",
            "Rooms that this node has not ended only because the cluster is letting in a crowd.",
            value=cluster.deadlines.extended,
        )
        yield GaugeMetricFamily(
            "keepline_draining", "Whether the node is draining.", value=app.around.draining()
        )
        yield GaugeMetricFamily(
            "keepline_clock_skew_seconds",
            "How far Redis' clock is ahead of this machine's.",
            value=app.around.clock.seconds() - time.time(),
        )
        yield CounterMetricFamily(
            "keepline_clock_steps",
            "Steps of Redis' clock that this node removed from the cluster's time.",
            value=cluster.heartbeat.clock_sync.steps,
        )
        recovered = app.recovery.counts
        yield CounterMetricFamily(
            "keepline_partitions_recovered",
            "Partitions that this node restored after Redis had lost them.",
            value=recovered.partitions,
        )
        yield CounterMetricFamily(
            "keepline_rooms_revived",
            "Rooms that this node restored from Postgres.",
            value=app.recovery.revival.counts.revived,
        )
        yield CounterMetricFamily(
            "keepline_rows_unreadable",
            "Rooms in Postgres that could not be read, and were not restored.",
            value=app.recovery.unreadable_rows,
        )


def _counter(name: str, meaning: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, meaning: str, timings: Timings) -> Metric:
    family = HistogramMetricFamily(name, meaning)
    timings.add_to(family)
    return family
