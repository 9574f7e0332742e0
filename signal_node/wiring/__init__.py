"""Assembles a node. Each part is complete when it is created, from parts that already exist."""
