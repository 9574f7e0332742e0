"""Generates dashboards/keepline.json: `python deploy/grafana/dashboard.py`. Edit the panels here, not in the JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent / "dashboards" / "keepline.json"
COLUMNS, HEIGHT = 24, 7
WIDE, THIRD, QUARTER = 12, 8, 6


class Panel(NamedTuple):
    """A panel. `queries` are (expression, legend) pairs; `kind` is Grafana's panel type."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = THIRD
    kind: str = "timeseries"
    meaning: str = ""


ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "At a glance",
        (
            Panel(
                "Alerts firing",
                [('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts")],
                kind="stat",
                width=4,
            ),
            Panel("Nodes ready", [('sum(keepline_ready{job="node"})', "nodes")], kind="stat", width=4),
            Panel("Connections", [("keepline:connections:sum", "connections")], kind="stat", width=4),
            Panel("Rooms", [("sum(keepline:rooms:sum)", "rooms")], kind="stat", width=4),
            Panel(
                "Postgres lag",
                [("max(keepline_persister_lag_seconds)", "lag")],
                "s",
                kind="stat",
                width=4,
            ),
            Panel(
                "Dead letters",
                [("max(keepline_persister_dead_letters_waiting)", "dead letters")],
                kind="stat",
                width=4,
            ),
        ),
    ),
    (
        "Calls",
        (
            Panel("Rooms by status and mode", [("keepline:rooms:sum", "{{status}} {{mode}}")]),
            Panel(
                "Rooms opened, met, ended per second",
                [
                    ("sum(rate(keepline_rooms_opened_total[1m]))", "opened"),
                    ("sum(rate(keepline_calls_met_total[1m]))", "met"),
                    ("sum by (reason) (rate(keepline_rooms_ended_total[1m]))", "ended: {{reason}}"),
                ],
            ),
            Panel(
                "Wait for the second member",
                [
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(keepline_meeting_seconds_bucket[5m])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(keepline_meeting_seconds_bucket[5m])))",
                        "p99",
                    ),
                ],
                "s",
            ),
            Panel(
                "Offers by outcome per second",
                [("sum by (outcome) (rate(keepline_offers_total[1m]))", "{{outcome}}")],
                meaning="unanswered: both peers were present, but no answer came within 15 s",
            ),
            Panel(
                "Offer to answer",
                [
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(keepline_answer_seconds_bucket[5m])))",
                        "p50",
                    ),
                    ("keepline:answer_seconds:p99", "p99"),
                ],
                "s",
            ),
            Panel(
                "Absences by outcome per second",
                [("sum by (outcome) (rate(keepline_absences_total[1m]))", "{{outcome}}")],
            ),
            Panel(
                "Success ratios",
                [
                    ("keepline:absences:returned_ratio5m", "absent sides that return"),
                    ("keepline:resumes:resumed_ratio5m", "resumes that succeed"),
                    ("keepline:offers:answered_ratio5m", "offers that are answered"),
                ],
                "percentunit",
            ),
            Panel(
                "Absence of sides that return",
                [
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(keepline_absence_seconds_bucket[5m])))",
                        "p50",
                    ),
                    ("keepline:absence_seconds:p99", "p99"),
                ],
                "s",
            ),
            Panel(
                "Resumes by outcome per second",
                [("sum by (outcome) (rate(keepline_resumes_total[1m]))", "{{outcome}}")],
            ),
        ),
    ),
    (
        "Signals",
        (
            Panel("Signals per second", [("keepline:signals:rate1m", "{{path}}")]),
            Panel(
                "Relay on one node",
                [("keepline:relay_seconds:p50", "p50"), ("keepline:relay_seconds:p99", "p99")],
                "s",
            ),
            Panel(
                "Latency between nodes",
                [
                    ("keepline:internode_latency_seconds:p50", "p50"),
                    ("keepline:internode_latency_seconds:p99", "p99"),
                ],
                "s",
            ),
            Panel("Event loop lag, p99", [("keepline:loop_lag_seconds:p99", "{{job}} {{instance}}")], "s"),
            Panel(
                "Between nodes",
                [
                    ("sum(rate(keepline_bus_packets_total[1m]))", "packets per second"),
                    ("sum(keepline_bus_queued)", "frames queued"),
                    ("sum(rate(keepline_inbox_gaps_total[5m]))", "gaps per second"),
                ],
            ),
            Panel(
                "Silent inboxes",
                [
                    ("rate(keepline_inbox_silent_seconds_total[1m])", "{{instance}}"),
                    ("keepline_inbox_silent", "now: {{instance}}"),
                ],
            ),
        ),
    ),
    (
        "Clients",
        (
            Panel("Connections by node", [("keepline_connections", "{{instance}}")]),
            Panel(
                "Connections opened and closed per second",
                [
                    ("sum(rate(keepline_connections_opened_total[1m]))", "opened"),
                    ("sum by (end) (rate(keepline_connections_closed_total[1m]))", "closed: {{end}}"),
                    ("sum(rate(keepline_replaced_total[1m]))", "replaced"),
                ],
            ),
            Panel("Logins per second", [("sum by (result) (rate(keepline_logins_total[1m]))", "{{result}}")]),
            Panel(
                "Errors sent per second",
                [("sum by (code) (rate(keepline_errors_total[1m]))", "{{code}}")],
            ),
            Panel(
                "Refused addresses per second",
                [("sum by (limit) (rate(keepline_limited_total[1m]))", "{{limit}}")],
            ),
            Panel(
                "Login crowds",
                [
                    ("keepline_hellos_waiting", "{{instance}} waiting hellos"),
                    ("keepline_crowded == 1", "{{instance}} is crowded"),
                    ("keepline_hellos_full == 1", "{{instance}} defers new clients"),
                    (
                        "sum(rate(keepline_hellos_postponed_total[1m]))"
                        " + sum(rate(keepline_handshakes_postponed_total[1m]))",
                        "clients deferred per second",
                    ),
                    ("sum(keepline_backlog)", "sockets waiting to be read"),
                    ("sum(keepline_graces_extended)", "calls waiting for clients of a dead node"),
                ],
            ),
            Panel(
                "Sockets",
                [
                    ("sum(keepline_sockets)", "open"),
                    ("sum(keepline_connections_before_hello)", "before hello"),
                    ("sum(keepline_sockets_limit)", "limit"),
                ],
            ),
            Panel(
                "Connections to ops ports",
                [
                    ("keepline_ops_connections", "{{instance}}"),
                    ("max(keepline_ops_connections_limit)", "limit"),
                ],
            ),
            Panel(
                "Strangers at ops ports, a second",
                [
                    ("sum(rate(keepline_ops_connections_dropped_total[1m]))", "connections closed"),
                    ("sum(rate(keepline_ops_bad_requests_total[1m]))", "no HTTP"),
                    ("sum(rate(keepline_ops_reads_paused_total[1m]))", "reads paused"),
                ],
            ),
            Panel(
                "Sockets refused and reads paused per second",
                [
                    ("sum by (reason) (rate(keepline_sockets_refused_total[1m]))", "{{reason}}"),
                    ("sum(rate(keepline_reads_paused_total[1m]))", "reads paused"),
                    ("sum(rate(keepline_stalled_seconds_total[1m]))", "seconds stalled"),
                ],
            ),
            Panel(
                "Wait of a hello in the queue",
                [
                    (
                        f"histogram_quantile({q}, sum by (le) (rate(keepline_hello_wait_seconds_bucket[5m])))",
                        name,
                    )
                    for q, name in ((0.5, "p50"), (0.99, "p99"))
                ],
                "s",
            ),
        ),
    ),
    (
        "Changes of rooms, and Redis",
        (
            Panel(
                "Commits per second",
                [
                    ("sum by (result) (rate(keepline_commits_total[1m]))", "{{result}}"),
                    ("sum(rate(keepline_commit_batches_failed_total[1m]))", "failed batches"),
                ],
            ),
            Panel(
                "Duration of a commit batch",
                [
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(keepline_commit_seconds_bucket[5m])))",
                        "p50",
                    ),
                    ("keepline:commit_seconds:p99", "p99"),
                ],
                "s",
            ),
            Panel("Journal length", [("keepline_journal_length", "{{instance}}")]),
            Panel(
                "Rooms restored per second",
                [
                    ("sum(rate(keepline_rooms_caught_up_total[5m]))", "caught up with Redis"),
                    ("sum(rate(keepline_rooms_put_back_total[5m]))", "from memory"),
                    ("sum(rate(keepline_rooms_revived_total[5m]))", "from Postgres"),
                    ("sum(rate(keepline_notice_gaps_total[5m]))", "notices missed"),
                    ("sum(rate(keepline_rooms_unreadable_total[5m]))", "unreadable"),
                ],
            ),
            Panel(
                "Partitions recovered",
                [
                    ("sum(increase(keepline_partitions_recovered_total[5m]))", "partitions"),
                    ("sum(increase(keepline_rows_unreadable_total[5m]))", "unreadable rows"),
                ],
            ),
            Panel("Cached rooms", [("keepline_cached_rooms", "{{instance}}")]),
        ),
    ),
    (
        "Persisters, and Postgres",
        (
            Panel(
                "Lag by partition",
                [("max by (partition) (keepline_persister_partition_lag_seconds)", "{{partition}}")],
                "s",
            ),
            Panel(
                "Entries not in Postgres",
                [
                    ("max(keepline_persister_lag_entries)", "unread"),
                    ("max(keepline_persister_pending_entries)", "pending"),
                    (
                        "max by (partition) (keepline_persister_partition_lag_entries)",
                        "partition {{partition}}",
                    ),
                ],
            ),
            Panel(
                "Rows per second",
                [
                    ("keepline:persister_rows:rate1m", "written"),
                    (
                        "sum by (table) (rate(keepline_persister_rows_removed_total[5m]))",
                        "removed: {{table}}",
                    ),
                ],
            ),
            Panel(
                "Duration of a batch",
                [
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(keepline_persister_batch_seconds_bucket[5m])))",
                        "p50",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(keepline_persister_batch_seconds_bucket[5m])))",
                        "p99",
                    ),
                ],
                "s",
            ),
            Panel(
                "Entries and batches per second",
                [
                    ("sum by (how) (rate(keepline_persister_entries_read_total[1m]))", "read: {{how}}"),
                    ("sum(rate(keepline_persister_entries_trimmed_total[1m]))", "trimmed"),
                    ("sum(rate(keepline_persister_batches_total[1m]))", "batches"),
                ],
            ),
            Panel(
                "Retries per second",
                [("sum by (cause) (rate(keepline_persister_retries_total[1m]))", "{{cause}}")],
            ),
            Panel(
                "Longest stream",
                [("max(keepline_persister_stream_fill_ratio)", "of its limit")],
                "percentunit",
                QUARTER,
            ),
            Panel(
                "Time since the last commit",
                [("time() - max(keepline_persister_last_commit_timestamp_seconds > 0)", "seconds")],
                "s",
                QUARTER,
            ),
            Panel("Oldest pending entry", [("max(keepline_persister_pending_seconds)", "age")], "s", QUARTER),
            Panel(
                "Dead letters and losses",
                [
                    (
                        "sum by (cause) (increase(keepline_persister_dead_letters_total[5m]))",
                        "dead letters: {{cause}}",
                    ),
                    ("sum(increase(keepline_persister_entries_lost_total[5m]))", "lost"),
                    ("sum(increase(keepline_persister_entries_postponed_total[5m]))", "postponed"),
                ],
                width=QUARTER,
            ),
        ),
    ),
    (
        "Programs",
        (
            Panel(
                "Failing dependencies",
                [("keepline_dependency_up == 0", "{{job}} {{instance}}: {{dependency}}")],
            ),
            Panel(
                "Time since a dependency last worked",
                [("keepline_dependency_proof_age_seconds", "{{job}} {{instance}}: {{dependency}}")],
                "s",
            ),
            Panel(
                "Unmet readiness conditions",
                [
                    ("keepline_condition_failed == 1", "{{instance}}: {{condition}}"),
                    ("keepline_draining == 1", "{{instance}} draining"),
                ],
            ),
            Panel(
                "CPU",
                [('rate(process_cpu_seconds_total{job=~"node|persister"}[1m])', "{{job}} {{instance}}")],
                "percentunit",
            ),
            Panel(
                "Memory",
                [('process_resident_memory_bytes{job=~"node|persister"}', "{{job}} {{instance}}")],
                "bytes",
            ),
            Panel(
                "Nodes",
                [
                    ("max(keepline_nodes)", "live"),
                    ("sum(increase(keepline_nodes_buried_total[5m]))", "declared dead"),
                ],
                width=4,
            ),
            Panel(
                "Clock skew",
                [
                    ("keepline_clock_skew_seconds", "{{instance}}"),
                    ("increase(keepline_clock_steps_total[5m])", "{{instance}} steps"),
                ],
                "s",
                4,
            ),
            Panel(
                "Versions",
                [
                    ("count by (program, version) (keepline_build_info)", "{{program}} {{version}}"),
                    ("min(keepline_turn_configured)", "TURN configured"),
                    ("max by (url) (keepline_turn_up)", "{{url}} gives relays"),
                ],
                width=THIRD,
            ),
            Panel(
                "HAProxy sessions",
                [("sum by (proxy) (haproxy_frontend_current_sessions)", "{{proxy}}")],
                width=THIRD,
            ),
            Panel(
                "HAProxy servers up",
                [("sum by (proxy) (haproxy_backend_active_servers)", "{{proxy}}")],
                width=THIRD,
            ),
        ),
    ),
)


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel.title,
        "description": panel.meaning,
        "type": panel.kind,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 4 if panel.kind == "stat" else HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0 if panel.unit != "s" else None},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + at), "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(panel.queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }
        )
        x, y, tallest = 0, y + 1, 0
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            panels.append(_panel(len(panels) + 1, panel, x, y))
            x, tallest = x + panel.width, max(tallest, panels[-1]["gridPos"]["h"])
        y += tallest
    return {
        "uid": "keepline",
        "title": "Keepline",
        "tags": ["keepline"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "editable": True,
        "panels": panels,
    }


def text() -> str:
    """The file as it is to be."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
