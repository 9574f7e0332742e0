"""The persister's metrics. No label contains a room or a user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_HOW = ("new", "own", "claimed")
_RETRIES = ("redis", "connection", "read_only", "resources", "conflict", "timeout", "refused")
_DEAD_LETTERS = ("event", "row", "history")
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters and gauges of a persister."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.entries_read = Counter(
            "keepline_persister_entries_read",
            "Entries read from the event streams, by how: new, own (again, after a lost answer) or claimed.",
            ["how"],
            registry=registry,
        )
        self.rows_written = Counter(
            "keepline_persister_rows_written",
            "Rows inserted or updated.",
            registry=registry,
        )
        self.rows_removed = Counter(
            "keepline_persister_rows_removed",
            "Expired rows that were deleted, by table.",
            ["table"],
            registry=registry,
        )
        self.batches = Counter("keepline_persister_batches", "Committed transactions.", registry=registry)
        self.retries = Counter(
            "keepline_persister_retries",
            "Attempts that failed for a possibly temporary reason, by cause.",
            ["cause"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "keepline_persister_dead_letters",
            "Entries that were moved to the dead letters, by cause: event (unreadable), row (refused) or"
            " history (the room is written, its call was refused).",
            ["cause"],
            registry=registry,
        )
        self.postponed = Counter(
            "keepline_persister_entries_postponed",
            "Entries postponed because the app locks what they change, or because they took too long.",
            registry=registry,
        )
        self.entries_lost = Counter(
            "keepline_persister_entries_lost",
            "Entries that a stream's limit dropped before they were written.",
            registry=registry,
        )
        self.trimmed = Counter(
            "keepline_persister_entries_trimmed",
            "Acknowledged entries deleted from the streams.",
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "keepline_persister_batch_seconds",
            "Time from reading a batch to committing it, including waits for Postgres.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.lag_entries = Gauge(
            "keepline_persister_lag_entries",
            "Entries in the streams that no persister has read.",
            registry=registry,
        )
        self.pending_entries = Gauge(
            "keepline_persister_pending_entries",
            "Entries that persisters have read but not acknowledged.",
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "keepline_persister_lag_seconds",
            "Age of the oldest entry that is not in Postgres yet; 0 if there is none.",
            registry=registry,
        )
        self.pending_seconds = Gauge(
            "keepline_persister_pending_seconds",
            "Age of the oldest entry that was read but not acknowledged; 0 if there is none.",
            registry=registry,
        )
        self.partition_lag_entries = Gauge(
            "keepline_persister_partition_lag_entries",
            "Entries of a partition that are not in Postgres yet, read or not.",
            ["partition"],
            registry=registry,
        )
        self.partition_lag_seconds = Gauge(
            "keepline_persister_partition_lag_seconds",
            "Age of the oldest entry of a partition that is not in Postgres yet; 0 if there is none.",
            ["partition"],
            registry=registry,
        )
        self.dead_letters_waiting = Gauge(
            "keepline_persister_dead_letters_waiting",
            "Dead letters in all partitions that were neither replayed nor deleted.",
            registry=registry,
        )
        self.last_commit = Gauge(
            "keepline_persister_last_commit_timestamp_seconds",
            "When this persister last committed a transaction, in seconds since 1970; 0 for never.",
            registry=registry,
        )
        self.stream_fill = Gauge(
            "keepline_persister_stream_fill_ratio",
            "Length of the longest stream, as a part of its limit: 1 and more means that the oldest entries give way.",
            registry=registry,
        )
        # Start at 0, so that rates see the first increment.
        for counter, values in (
            (self.entries_read, _HOW),
            (self.retries, _RETRIES),
            (self.dead_letters, _DEAD_LETTERS),
        ):
            for value in values:
                counter.labels(value)
