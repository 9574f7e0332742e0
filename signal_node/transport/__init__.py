"""Bytes in and out: the listener, WebSocket websocket, connections."""
