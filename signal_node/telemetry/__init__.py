"""Counters and logs of calls, for metrics and for operators."""
