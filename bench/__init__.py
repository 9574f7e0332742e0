"""The cost of a signal: Keepline compared with other relays in the same run. `python -m bench --help`."""
