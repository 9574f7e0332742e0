"""Who a client is, and which session holds a user."""
