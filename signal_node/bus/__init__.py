"""How nodes reach each other's clients: each has an inbox, over Redis pub/sub, and an outbox for the others' inboxes.

What a caller may assume. `Outbox.send` never waits and never fails: the frame is in memory until the current round trip
to Redis is over, then everything that has gathered for one node leaves as one PUBLISH, and all nodes' in one write.
A packet has at most `MAX_PACKET_BYTES`; what is more goes with the next ones. Frames from one node to another arrive in
the order sent, at most once; they are lost with the connection to Redis, and new ones are refused while too many wait,
or too many bytes. Notices of commits come through the same channel, but are published by the commit script, and are not
ordered against frames.

On a Redis Cluster there are several lanes (see `lanes`), each with tasks of its own, so that a shard that is away
holds up no other. All packets from one node to another take the same lane, which keeps them in order and spreads pairs
of nodes over the shards. Where that lane fails, or nobody hears on it, they take the next from then on.
"""
