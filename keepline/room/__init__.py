"""Rooms: their state and the transitions that they allow. Pure: no I/O, no clock, no asyncio.

Read `record` for the data of a room, `state` for its transitions and `deadlines` for its timers. `codec` and `rows` are
its two serialized forms, and `keys` has its keys in Redis.
"""
