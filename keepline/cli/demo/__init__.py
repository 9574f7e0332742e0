"""The demo page of `keepline up`: what it serves, its calls, and the way in from a phone."""
