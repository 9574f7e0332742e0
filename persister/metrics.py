"""The persister's metrics. No label contains a room or a user."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_HOW = ("new", "own", "claimed")
_RETRIES = ("redis", "connection", "read_only", "resources", "conflict", "timeout", "refused")
_DEAD_LETTERS = ("event", "row", "history")
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class StreamMetrics:
    """What is in the streams of all partitions, for all persisters."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self.lag_entries = gauge(
            "keepline_persister_lag_entries", "Entries in the streams that no persister has read."
        )
        self.pending_entries = gauge(
            "keepline_persister_pending_entries", "Entries that persisters have read but not acknowledged."
        )
        self.lag_seconds = gauge(
            "keepline_persister_lag_seconds",
            "Age of the oldest entry that is not in Postgres yet; 0 if there is none.",
        )
        self.pending_seconds = gauge(
            "keepline_persister_pending_seconds",
            "Age of the oldest entry that was read but not acknowledged; 0 if there is none.",
        )
        self.partition_lag_entries = gauge(
            "keepline_persister_partition_lag_entries",
            "Entries of a partition that are not in Postgres yet, read or not.",
            ["partition"],
        )
        self.partition_lag_seconds = gauge(
            "keepline_persister_partition_lag_seconds",
            "Age of the oldest entry of a partition that is not in Postgres yet; 0 if there is none.",
            ["partition"],
        )
        self.dead_letters_waiting = gauge(
            "keepline_persister_dead_letters_waiting",
            "Dead letters in all partitions that were neither replayed nor deleted.",
        )
        self.stream_fill = gauge(
            "keepline_persister_stream_fill_ratio",
            "Length of the longest stream, as a part of its limit: 1 and more means that the oldest entries give way.",
        )


class Metrics:
    """The counters and gauges of a persister."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self.streams = StreamMetrics(registry)
        self.entries_read = counter(
            "keepline_persister_entries_read",
            "Entries read from the event streams, by how: new, own (again, after a lost answer) or claimed.",
            ["how"],
        )
        self.rows_written = counter("keepline_persister_rows_written", "Rows inserted or updated.")
        self.rows_removed = counter(
            "keepline_persister_rows_removed", "Expired rows that were deleted, by table.", ["table"]
        )
        self.batches = counter("keepline_persister_batches", "Committed transactions.")
        self.retries = counter(
            "keepline_persister_retries",
            "Attempts that failed for a possibly temporary reason, by cause.",
            ["cause"],
        )
        self.dead_letters = counter(
            "keepline_persister_dead_letters",
            "Entries that were moved to the dead letters, by cause: event (unreadable), row (refused) or"
            " history (the room is written, its call was refused).",
            ["cause"],
        )
        self.postponed = counter(
            "keepline_persister_entries_postponed",
            "Entries postponed because the app locks what they change, or because they took too long.",
        )
        self.entries_lost = counter(
            "keepline_persister_entries_lost",
            "Entries that a stream's limit dropped before they were written.",
        )
        self.trimmed = counter(
            "keepline_persister_entries_trimmed", "Acknowledged entries deleted from the streams."
        )
        self.batch_seconds = Histogram(
            "keepline_persister_batch_seconds",
            "Time from reading a batch to committing it, including waits for Postgres.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.last_commit = gauge(
            "keepline_persister_last_commit_timestamp_seconds",
            "When this persister last committed a transaction, in seconds since 1970; 0 for never.",
        )
        # Start at 0, so that rates see the first increment.
        for labelled, values in (
            (self.entries_read, _HOW),
            (self.retries, _RETRIES),
            (self.dead_letters, _DEAD_LETTERS),
        ):
            for value in values:
                labelled.labels(value)
