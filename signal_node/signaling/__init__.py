"""What the node does for its clients: relay, log in, join, report, drain."""
