"""A whole cluster on this machine: `keepline up`."""
