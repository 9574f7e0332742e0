"""STUN and TURN servers: the list for clients, and checks that they work."""
