"""Limits per IP address."""
