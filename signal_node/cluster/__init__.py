"""What nodes do for each other: heartbeat, burial, deadlines, recovery."""
