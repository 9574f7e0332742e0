"""Metrics of clients: connections, logins, limits."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from signal_node.app import App
from signal_node.metrics.families import counter
from signal_node.protocol.close_codes import CLOSES
from signal_node.protocol.error_codes import ErrorCode
from signal_node.signaling.admission_queue import Line
from signal_node.transport.listener import Listener

_ENDS = ("client", "lost", "handshake", *(str(close.code) for close in CLOSES))


def connections(app: App) -> Iterator[Metric]:
    """Connections, and what they cost."""
    clients = app.connections
    yield GaugeMetricFamily(
        "keepline_connections", "Open client connections, before and after login.", value=len(clients)
    )
    yield CounterMetricFamily(
        "keepline_connections_opened", "Successful WebSocket handshakes.", value=clients.opened_ones
    )
    yield counter(
        "keepline_connections_closed",
        "Closed connections, by end: the code of our close, client (closed first), lost, or handshake (failed).",
        "end",
        {end: clients.closed_ones[end] for end in _ENDS},
    )
    yield CounterMetricFamily(
        "keepline_replaced",
        "Connections closed because their user connected again.",
        value=app.rooms.sessions.replaced_ones,
    )
    yield counter(
        "keepline_errors",
        "Error frames sent to clients, by code.",
        "code",
        {code.value: clients.errors[code] for code in ErrorCode},
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


def logins(app: App) -> Iterator[Metric]:
    """What became of hellos."""
    logins = app.clients.login.counts
    yield counter(
        "keepline_logins",
        "Checked tokens, by result.",
        "result",
        {"ok": logins.accepted, "refused": logins.refused},
    )
    yield counter(
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
    admission = app.admission
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


def limits(app: App, listener: Listener) -> Iterator[Metric]:
    """What was refused."""
    clients = app.connections
    limits = app.limits.refusals.counts
    yield counter(
        "keepline_limited",
        "Refusals because an address reached a limit, by limit.",
        "limit",
        {"connections": limits.connections, "logins": limits.logins, "login_rate": limits.login_rate},
    )
    sockets = app.limits.sockets
    yield counter(
        "keepline_sockets_refused",
        "Sockets that were closed at accept, or could not be accepted, by reason.",
        "reason",
        {
            "address": sockets.refused["address"],
            "full": sockets.refused["full"],
            "descriptors": listener.short,
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
    waiting = listener.waiting
    yield GaugeMetricFamily("keepline_backlog", "Accepted sockets that are not read yet.", value=waiting)
    yield GaugeMetricFamily(
        "keepline_sockets_limit", "Maximum number of client sockets.", value=sockets.limit
    )


def turn(app: App) -> Iterator[Metric]:
    """TURN servers."""
    yield GaugeMetricFamily(
        "keepline_turn_configured",
        "Whether clients are given a TURN server.",
        value=bool(app.ice.turn_urls),
    )
    turn_up = GaugeMetricFamily(
        "keepline_turn_up",
        "Whether a TURN server gave this node a relay in its last check.",
        labels=["url"],
    )
    for url, up in app.turn.up.items():
        turn_up.add_metric([url], up)
    yield turn_up
