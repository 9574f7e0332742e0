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
    FOR unfit IN
        SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE NOT indisvalid AND relkind = 'i' AND (relname = 'reports_keepline_id_idx' OR relname LIKE 'keepline_reports\_%')
    LOOP
        EXECUTE 'DROP INDEX ' || unfit;
    END LOOP;
END
$$;

COMMIT;

-- by itself
SELECT format(
    'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS reports_keepline_id_idx ON %I.reports (keepline_id)'
    ' WHERE keepline_id IS NOT NULL', nspname
)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'reports'::regclass AND relkind = 'r'
\gexec

-- by itself
-- A partitioned table cannot have a unique index without its partition key: there the persister looks before it writes.
-- What it looks into is built partition by partition; the index of the whole table finds these there, and gives new
-- partitions theirs.
SELECT format(
    'CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I.%I (keepline_id) WHERE keepline_id IS NOT NULL',
    'keepline_reports_' || part.oid, nspname, part.relname
)
FROM pg_partition_tree('reports'::regclass) JOIN pg_class AS part ON part.oid = relid
    JOIN pg_namespace ON pg_namespace.oid = part.relnamespace
WHERE isleaf
\gexec

-- by itself
SELECT format(
    'CREATE INDEX IF NOT EXISTS reports_keepline_id_idx ON %I.reports (keepline_id) WHERE keepline_id IS NOT NULL',
    nspname
)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'reports'::regclass AND relkind = 'p'
\gexec
