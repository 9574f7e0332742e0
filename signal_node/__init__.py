"""The signal node: the program that clients connect to."""
