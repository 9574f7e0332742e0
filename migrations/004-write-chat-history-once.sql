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

    IF (SELECT relkind = 'p' FROM pg_class WHERE oid = 'chat_history'::regclass) AND EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'chat_history'::regclass
            AND attname IN ('user_id', 'room_id') AND atttypid <> 'uuid'::regtype
    ) THEN
        RAISE EXCEPTION 'chat_history is partitioned: its user_id and room_id have to be of type UUID then';
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
    FOR unfit IN
        SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE NOT indisvalid AND relkind = 'i' AND (relname = 'chat_history_room_id_user_id_idx' OR relname LIKE 'keepline_history\_%')
    LOOP
        EXECUTE 'DROP INDEX ' || unfit;
    END LOOP;
END
$$;

COMMIT;

-- by itself
SELECT format(
    'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS chat_history_room_id_user_id_idx ON %I.chat_history (room_id, user_id)'
    ' WHERE room_version IS NOT NULL', nspname
)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'chat_history'::regclass AND relkind = 'r'
\gexec

-- by itself
-- A partitioned table cannot have a unique index without its partition key: there the persister looks before it writes.
-- What it looks into is built partition by partition; the index of the whole table finds these there, and gives new
-- partitions theirs.
SELECT format(
    'CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I.%I (room_id, user_id) WHERE room_version IS NOT NULL',
    'keepline_history_' || part.oid, nspname, part.relname
)
FROM pg_partition_tree('chat_history'::regclass) JOIN pg_class AS part ON part.oid = relid
    JOIN pg_namespace ON pg_namespace.oid = part.relnamespace
WHERE isleaf
\gexec

-- by itself
SELECT format(
    'CREATE INDEX IF NOT EXISTS chat_history_room_id_user_id_idx ON %I.chat_history (room_id, user_id) WHERE room_version IS NOT NULL',
    nspname
)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'chat_history'::regclass AND relkind = 'p'
\gexec
