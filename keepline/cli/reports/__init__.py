"""Tables for people, and their data for programs."""
