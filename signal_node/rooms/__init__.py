"""The cache of rooms, its way to Redis and back, and the archive in Postgres."""
