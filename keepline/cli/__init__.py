"""The `keepline` command. It starts the programs of a cluster as processes and never imports them."""
