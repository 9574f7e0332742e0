"""The operator's command. It starts the programs of the cluster as processes and never imports them."""
