"""STUN and TURN servers: what clients are told of them, and whether they work."""
