"""Rooms, pure: what a room is and which changes it allows. No I/O, no clock, no asyncio.

Read `record` for what a room is, `state` for what may happen to it and `deadlines` for when something
must. `codec` and `rows` are its two written forms, `keys` names where they stand in Redis.
"""
