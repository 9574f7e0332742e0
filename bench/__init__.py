"""What a signal costs: Keepline beside other relays, measured in the same run. `python -m bench --help`."""
