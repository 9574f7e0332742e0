-- What the cluster needs of reports to write there, once each, what its users report.
--
-- Idempotent, and safe while the old code serves: the columns are nullable, and the index is built without holding up
-- writers. It covers only rows that the cluster wrote, which are those with a keepline_id.

BEGIN;

SET LOCAL lock_timeout = '5s';
SET LOCAL client_min_messages = warning;

ALTER TABLE reports
    ADD COLUMN IF NOT EXISTS reporter_id UUID,
    ADD COLUMN IF NOT EXISTS reported_id UUID,
    ADD COLUMN IF NOT EXISTS room_id UUID,
    ADD COLUMN IF NOT EXISTS reason TEXT,
    ADD COLUMN IF NOT EXISTS reported_at TIMESTAMPTZ,
    -- Follows from who says what of which room. Null in rows of the app.
    ADD COLUMN IF NOT EXISTS keepline_id UUID;

DO $$
DECLARE
    unfit TEXT;
BEGIN
    SELECT string_agg(format('%s %s', a.attname, t.typname), ', ' ORDER BY a.attnum) INTO unfit
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = 'reports'::regclass AND (
        (a.attname IN ('reporter_id', 'reported_id', 'room_id') AND t.typname NOT IN ('uuid', 'text', 'varchar'))
        OR (a.attname = 'reason' AND t.typname NOT IN ('text', 'varchar'))
        OR (a.attname = 'reported_at' AND t.typname NOT IN ('timestamptz', 'timestamp'))
        OR (a.attname = 'session_data' AND t.typname NOT IN ('jsonb', 'json', 'text'))
        OR (a.attname = 'keepline_id' AND t.typname <> 'uuid')
    );
    IF unfit IS NOT NULL THEN
        RAISE EXCEPTION 'table reports has columns of another type than reports are written with: %', unfit
            USING HINT = 'Ids should be UUID, reason TEXT, reported_at TIMESTAMPTZ, session_data JSONB.';
    END IF;

    SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) INTO unfit
    FROM pg_attribute a
    WHERE a.attrelid = 'reports'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
        AND a.attname NOT IN (
            'reporter_id', 'reported_id', 'room_id', 'reason', 'reported_at', 'session_data', 'keepline_id'
        );
    IF unfit IS NOT NULL THEN
        RAISE WARNING 'reports needs a value in %, which the cluster does not know: until these have a default or'
            ' may be null, reports go to the dead letters instead', unfit;
    END IF;

    -- What a build that was interrupted has left.
    IF EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('reports_keepline_id_idx') AND NOT indisvalid
    ) THEN
        DROP INDEX reports_keepline_id_idx;
    END IF;
END
$$;

COMMIT;

-- by itself
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS reports_keepline_id_idx
    ON reports (keepline_id) WHERE keepline_id IS NOT NULL;
