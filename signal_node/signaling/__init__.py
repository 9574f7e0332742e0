"""What the node does for its clients: relay, login, join, report, drain."""
