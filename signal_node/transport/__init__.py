"""Bytes in and out: the listener, connections, and WebSocket framing."""
