"""The metrics of a node, read from plain numbers when they are asked for."""
