-- Ids of rooms that were removed from active_rooms, so that an event which comes very late brings none of them back.
--
-- Idempotent, and safe while the old code serves: a new table.

BEGIN;

SET LOCAL lock_timeout = '5s';
SET LOCAL client_min_messages = warning;

CREATE TABLE IF NOT EXISTS removed_rooms (
    room_id UUID PRIMARY KEY,
    removed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS removed_rooms_removed_at_idx ON removed_rooms (removed_at);

COMMIT;
