"""The HTTP API: rooms and referrals for the backend, the node for operators."""
