"""Connections to Redis or Valkey: one server, the primary of a Sentinel set, or a cluster. And Lua scripts."""

from keepline.ops.redis.client import Client, connect, is_cluster, servers, subscribed

__all__ = ["Client", "connect", "is_cluster", "servers", "subscribed"]
