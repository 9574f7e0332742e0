"""What clients and nodes say to each other: frames, close codes, and the session that takes them. No I/O."""
