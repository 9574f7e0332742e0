"""The protocol between clients and nodes: frames, close codes, and the session that processes them. No I/O."""
