"""The cache of rooms, its commits to Redis, and the archive in Postgres."""
