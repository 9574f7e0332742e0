-- The version of the room that an activity was written from, so that a batch which comes late changes nothing newer.
--
-- Idempotent, and safe while the old code serves: a column with a constant default, which rewrites nothing.

BEGIN;

SET LOCAL lock_timeout = '5s';
SET LOCAL client_min_messages = warning;

ALTER TABLE text_room_activity ADD COLUMN IF NOT EXISTS version BIGINT NOT NULL DEFAULT 0;

COMMIT;
