"""How nodes reach each other's clients: each node has an inbox over Redis pub/sub, and an outbox for the others'
inboxes.

`Outbox.send` never waits and never fails. The frame stays in memory until the current round trip to Redis has finished.
Then everything queued for one node leaves as one PUBLISH, and the packets for all nodes leave in one write. A packet
has at most `MAX_PACKET_BYTES`; the rest goes into the next packets. Frames from one node to another arrive in order, at
most once. They are lost with the connection to Redis, and new ones are refused while too many frames or bytes are
queued. Notices of commits use the same channel, but the commit script publishes them, and they are not ordered relative
to frames.

On a Redis Cluster there are several lanes (see `lanes`), each with its own tasks, so that an unreachable shard delays
no other. All packets from one node to another take the same lane, which preserves their order and spreads pairs of
nodes over the shards. If that lane fails, or has no subscriber, they take the next one from then on.
"""
