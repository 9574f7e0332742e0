"""What is counted and noted of calls, for metrics and for operators."""
