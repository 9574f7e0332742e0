-- What the cluster itself keeps: rooms, referrals, activity in text rooms and rate limits.
--
-- Idempotent, and safe while the old code serves: new tables are empty, columns are added with a constant
-- default (no rewrite), the check on a table that may be large is validated in a transaction of its own.

BEGIN;

SET LOCAL lock_timeout = '5s';
SET LOCAL client_min_messages = warning;

CREATE TABLE IF NOT EXISTS active_rooms (
    room_id UUID PRIMARY KEY,
    user_1 UUID NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    user_2 UUID NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    duration_seconds INTEGER NOT NULL CHECK (duration_seconds >= 0),
    chat_mode VARCHAR(10) NOT NULL DEFAULT 'video' CHECK (chat_mode IN ('video', 'text')),
    status VARCHAR(20) NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'grace_period', 'ended')),
    grace_period_expires TIMESTAMPTZ,
    user_1_connected BOOLEAN NOT NULL DEFAULT FALSE,
    user_2_connected BOOLEAN NOT NULL DEFAULT FALSE,
    messages JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(messages) = 'array'),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    -- Decides which of two records is newer; a row never goes back to a lower one.
    version BIGINT NOT NULL DEFAULT 1,
    ended_reason VARCHAR(20),
    ended_at TIMESTAMPTZ,
    CHECK (user_1 <> user_2)
);
CREATE INDEX IF NOT EXISTS active_rooms_user_1_idx ON active_rooms (user_1);
CREATE INDEX IF NOT EXISTS active_rooms_user_2_idx ON active_rooms (user_2);
CREATE INDEX IF NOT EXISTS active_rooms_status_idx ON active_rooms (status);
CREATE INDEX IF NOT EXISTS active_rooms_started_at_idx ON active_rooms (started_at);
CREATE INDEX IF NOT EXISTS active_rooms_created_at_idx ON active_rooms (created_at);
CREATE INDEX IF NOT EXISTS active_rooms_updated_at_idx ON active_rooms (updated_at);

CREATE TABLE IF NOT EXISTS referral_mappings (
    referral_code VARCHAR(50) PRIMARY KEY,
    target_user_id UUID NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    created_by_user_id UUID NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    target_name TEXT,
    created_by_name TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS referral_mappings_target_user_id_idx ON referral_mappings (target_user_id);
CREATE INDEX IF NOT EXISTS referral_mappings_created_by_user_id_idx ON referral_mappings (created_by_user_id);
CREATE INDEX IF NOT EXISTS referral_mappings_created_at_idx ON referral_mappings (created_at);

CREATE TABLE IF NOT EXISTS text_room_activity (
    room_id UUID PRIMARY KEY REFERENCES active_rooms (room_id) ON DELETE CASCADE,
    user_1_last_message_at TIMESTAMPTZ,
    user_2_last_message_at TIMESTAMPTZ,
    warning_started_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS text_room_activity_updated_at_idx ON text_room_activity (updated_at);

CREATE TABLE IF NOT EXISTS rate_limits (
    ip_address INET PRIMARY KEY,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    first_attempt_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_attempt_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    expires_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS rate_limits_expires_at_idx ON rate_limits (expires_at);

CREATE OR REPLACE FUNCTION keepline_set_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER active_rooms_set_updated_at
    BEFORE UPDATE ON active_rooms FOR EACH ROW EXECUTE FUNCTION keepline_set_updated_at();
CREATE OR REPLACE TRIGGER text_room_activity_set_updated_at
    BEFORE UPDATE ON text_room_activity FOR EACH ROW EXECUTE FUNCTION keepline_set_updated_at();

-- The union of two arrays of messages by `seq`, ascending, the last 1000 kept. Of two messages with one `seq`
-- that of `a` stays. So messages may come late, twice and in any order, and the result is the same.
CREATE OR REPLACE FUNCTION keepline_merge_messages(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    kept jsonb := coalesce(a, '[]');
    added jsonb;
    merged jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(m ORDER BY seq), '[]') INTO added
    FROM (
        SELECT DISTINCT ON ((m ->> 'seq')::bigint) m, (m ->> 'seq')::bigint AS seq
        FROM jsonb_array_elements(coalesce(b, '[]')) AS m
        ORDER BY (m ->> 'seq')::bigint
    ) AS by_seq;

    IF kept = '[]' OR added = '[]' OR (kept -> -1 ->> 'seq')::bigint < (added -> 0 ->> 'seq')::bigint THEN
        merged := kept || added;  -- nearly always: what comes is newer than all that is there
    ELSE
        SELECT jsonb_agg(m ORDER BY seq) INTO merged
        FROM (
            SELECT DISTINCT ON ((m ->> 'seq')::bigint) m, (m ->> 'seq')::bigint AS seq
            FROM (
                SELECT m, 1 AS source FROM jsonb_array_elements(kept) AS m
                UNION ALL
                SELECT m, 2 AS source FROM jsonb_array_elements(added) AS m
            ) AS both_arrays
            ORDER BY (m ->> 'seq')::bigint, source
        ) AS by_seq;
    END IF;

    IF jsonb_array_length(merged) > 1000 THEN
        merged := jsonb_path_query_array(merged, '$[last - 999 to last]');
    END IF;
    RETURN merged;
END
$$;

ALTER TABLE chat_history ADD COLUMN IF NOT EXISTS chat_mode VARCHAR(10) DEFAULT 'video';
ALTER TABLE reports ADD COLUMN IF NOT EXISTS session_data JSONB;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'chat_history'::regclass AND conname = 'chat_history_chat_mode_check'
    ) THEN
        ALTER TABLE chat_history ADD CONSTRAINT chat_history_chat_mode_check
            CHECK (chat_mode IN ('video', 'text')) NOT VALID;
    END IF;
END
$$;

COMMIT;

BEGIN;

-- Reads the whole table, but lets others read and write it meanwhile.
ALTER TABLE chat_history VALIDATE CONSTRAINT chat_history_chat_mode_check;

COMMIT;
