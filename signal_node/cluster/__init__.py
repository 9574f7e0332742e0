"""What nodes do for each other: heartbeat, cleanup after dead nodes, deadlines, recovery."""
