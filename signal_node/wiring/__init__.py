"""Puts the parts of a node together. Each part is created complete, from parts that exist already."""
