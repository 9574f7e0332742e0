"""Keepline: WebRTC signaling that outlives every process."""
