"""The inbox of this node, and the way to those of the others."""
