"""The demo page of `keepline up`: its files, its calls, and access from a phone."""
