-- What the cluster needs of chat_history to write each call there once for each of its two users.
--
-- Idempotent, and safe while the old code serves: the columns are nullable, and the index is built without holding up
-- writers. It covers only rows that the cluster wrote, which are those with a room_version: what the app wrote
-- before, without a room or twice for one, cannot be in its way.

BEGIN;

SET LOCAL lock_timeout = '5s';
SET LOCAL client_min_messages = warning;

ALTER TABLE chat_history
    ADD COLUMN IF NOT EXISTS user_id UUID,
    ADD COLUMN IF NOT EXISTS partner_id UUID,
    ADD COLUMN IF NOT EXISTS room_id UUID,
    ADD COLUMN IF NOT EXISTS started_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS ended_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS duration_seconds INTEGER,
    -- The version in which the room ended. Null in rows of the app.
    ADD COLUMN IF NOT EXISTS room_version BIGINT;

DO $$
DECLARE
    unfit TEXT;
BEGIN
    SELECT string_agg(format('%s %s', a.attname, t.typname), ', ' ORDER BY a.attnum) INTO unfit
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = 'chat_history'::regclass AND (
        (a.attname IN ('user_id', 'partner_id', 'room_id') AND t.typname NOT IN ('uuid', 'text', 'varchar'))
        OR (a.attname IN ('started_at', 'ended_at') AND t.typname NOT IN ('timestamptz', 'timestamp'))
        OR (a.attname = 'duration_seconds' AND t.typname NOT IN ('int4', 'int8', 'numeric', 'float8'))
        OR (a.attname = 'room_version' AND t.typname <> 'int8')
    );
    IF unfit IS NOT NULL THEN
        RAISE EXCEPTION 'table chat_history has columns of another type than calls are written with: %', unfit
            USING HINT = 'Ids should be UUID, times TIMESTAMPTZ, duration_seconds INTEGER, room_version BIGINT.';
    END IF;

    SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) INTO unfit
    FROM pg_attribute a
    WHERE a.attrelid = 'chat_history'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
        AND a.attname NOT IN (
            'user_id', 'partner_id', 'room_id', 'chat_mode', 'started_at', 'ended_at', 'duration_seconds',
            'room_version'
        );
    IF unfit IS NOT NULL THEN
        RAISE WARNING 'chat_history needs a value in %, which the cluster does not know: until these have a default or'
            ' may be null, calls go to the dead letters instead', unfit;
    END IF;

    -- What a build that was interrupted has left.
    IF EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('chat_history_room_id_user_id_idx') AND NOT indisvalid
    ) THEN
        DROP INDEX chat_history_room_id_user_id_idx;
    END IF;
END
$$;

COMMIT;

-- by itself
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS chat_history_room_id_user_id_idx
    ON chat_history (room_id, user_id) WHERE room_version IS NOT NULL;
