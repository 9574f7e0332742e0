-- The persister's statements. Each begins with its name; `persister.database` reads them from here.

-- name: create_users
INSERT INTO users (user_id)
SELECT user_id FROM unnest($1::uuid[]) AS new (user_id) ORDER BY user_id
ON CONFLICT (user_id) DO NOTHING;

-- name: upsert_rooms
-- Locks every row it names, also those it leaves alone because they are newer.
INSERT INTO active_rooms (
    room_id, user_1, user_2, started_at, duration_seconds, chat_mode, status, grace_period_expires,
    user_1_connected, user_2_connected, created_at, version, ended_reason, ended_at
)
SELECT * FROM unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::integer[], $6::text[], $7::text[],
    $8::timestamptz[], $9::boolean[], $10::boolean[], $11::timestamptz[], $12::bigint[], $13::text[],
    $14::timestamptz[]
) AS new (room_id)
ORDER BY room_id
ON CONFLICT (room_id) DO UPDATE SET
    started_at = EXCLUDED.started_at,
    duration_seconds = EXCLUDED.duration_seconds,
    chat_mode = EXCLUDED.chat_mode,
    status = EXCLUDED.status,
    grace_period_expires = EXCLUDED.grace_period_expires,
    user_1_connected = EXCLUDED.user_1_connected,
    user_2_connected = EXCLUDED.user_2_connected,
    version = EXCLUDED.version,
    ended_reason = EXCLUDED.ended_reason,
    ended_at = EXCLUDED.ended_at
WHERE active_rooms.version < EXCLUDED.version;

-- name: append_messages
-- Apart from the rooms: messages count whichever version brought them. Rows that have them all stay untouched.
UPDATE active_rooms AS room
SET messages = keepline_merge_messages(room.messages, new.added)
FROM (SELECT room_id, added::jsonb FROM unnest($1::uuid[], $2::text[]) AS given (room_id, added)) AS new
WHERE room.room_id = new.room_id AND NOT room.messages @> new.added;

-- name: upsert_activity
-- After upsert_rooms, which has locked the rooms. A video room gives none, so its last one as a text room stays.
INSERT INTO text_room_activity (
    room_id, user_1_last_message_at, user_2_last_message_at, warning_started_at, version
)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::bigint[])
    AS new (room_id)
ORDER BY room_id
ON CONFLICT (room_id) DO UPDATE SET
    user_1_last_message_at = EXCLUDED.user_1_last_message_at,
    user_2_last_message_at = EXCLUDED.user_2_last_message_at,
    warning_started_at = EXCLUDED.warning_started_at,
    version = EXCLUDED.version
WHERE text_room_activity.version < EXCLUDED.version;

-- name: insert_history
-- The index that it relies on holds only rows of the cluster's own.
INSERT INTO chat_history (
    room_id, user_id, partner_id, chat_mode, started_at, ended_at, duration_seconds, room_version
)
SELECT * FROM unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::integer[], $8::bigint[]
) AS new (room_id, user_id)
ORDER BY room_id, user_id
ON CONFLICT (room_id, user_id) WHERE room_version IS NOT NULL DO UPDATE SET
    chat_mode = EXCLUDED.chat_mode,
    started_at = EXCLUDED.started_at,
    ended_at = EXCLUDED.ended_at,
    duration_seconds = EXCLUDED.duration_seconds,
    room_version = EXCLUDED.room_version
WHERE chat_history.room_version < EXCLUDED.room_version;

-- name: update_partitioned_history
-- In the place of insert_history, with the one below, where the table cannot have the index: upsert_rooms has locked the
-- room, so nobody else writes its history in between.
UPDATE chat_history AS known SET
    chat_mode = new.chat_mode,
    started_at = new.started_at,
    ended_at = new.ended_at,
    duration_seconds = new.duration_seconds,
    room_version = new.room_version
FROM unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::integer[], $8::bigint[]
) AS new (room_id, user_id, partner_id, chat_mode, started_at, ended_at, duration_seconds, room_version)
WHERE known.room_id = new.room_id AND known.user_id = new.user_id AND known.room_version < new.room_version;

-- name: insert_partitioned_history
INSERT INTO chat_history (
    room_id, user_id, partner_id, chat_mode, started_at, ended_at, duration_seconds, room_version
)
SELECT * FROM unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::integer[], $8::bigint[]
) AS new (room_id, user_id)
WHERE NOT EXISTS (
    SELECT FROM chat_history AS known
    WHERE known.room_id = new.room_id AND known.user_id = new.user_id AND known.room_version IS NOT NULL
)
ORDER BY room_id, user_id;

-- name: drop_removed_rooms
-- After all else: an event that came very late has brought back a room that was removed. It holds the row's lock since
-- upsert_rooms, so if the room is removed at the same time, either that has ended and is seen here, or it waits.
DELETE FROM active_rooms AS room
USING removed_rooms AS removed
WHERE room.room_id = ANY ($1::uuid[]) AND removed.room_id = room.room_id;

-- name: remove_ended_rooms
WITH due AS (
    SELECT room_id FROM active_rooms
    WHERE status = 'ended' AND updated_at < now() - make_interval(secs => $1)
    ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM active_rooms USING due WHERE active_rooms.room_id = due.room_id RETURNING due.room_id
), remembered AS (
    INSERT INTO removed_rooms (room_id) SELECT room_id FROM removed ON CONFLICT (room_id) DO NOTHING
)
SELECT count(*) FROM removed;

-- name: forget_removed_rooms
WITH due AS (
    SELECT room_id FROM removed_rooms WHERE removed_at < now() - make_interval(secs => $1)
    ORDER BY removed_at LIMIT $2 FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM removed_rooms USING due WHERE removed_rooms.room_id = due.room_id RETURNING 1
)
SELECT count(*) FROM removed;

-- name: remove_referrals
WITH due AS (
    SELECT referral_code FROM referral_mappings WHERE created_at < now() - make_interval(secs => $1)
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM referral_mappings USING due
    WHERE referral_mappings.referral_code = due.referral_code RETURNING 1
)
SELECT count(*) FROM removed;

-- name: remove_expired_limits
WITH due AS (
    SELECT ip_address FROM rate_limits WHERE expires_at < now() - make_interval(secs => $1)
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM rate_limits USING due WHERE rate_limits.ip_address = due.ip_address RETURNING 1
)
SELECT count(*) FROM removed;

-- name: upsert_attempts
INSERT INTO rate_limits (ip_address, attempts, first_attempt_at, last_attempt_at, expires_at)
SELECT
    address::inet, attempts, to_timestamp(first_at / 1000.0), to_timestamp(last_at / 1000.0),
    to_timestamp(expires_at / 1000.0)
FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[])
    AS new (address, attempts, first_at, last_at, expires_at)
ORDER BY address
ON CONFLICT (ip_address) DO UPDATE SET
    attempts = EXCLUDED.attempts,
    first_attempt_at = EXCLUDED.first_attempt_at,
    last_attempt_at = EXCLUDED.last_attempt_at,
    expires_at = EXCLUDED.expires_at
WHERE (rate_limits.last_attempt_at, rate_limits.attempts) < (EXCLUDED.last_attempt_at, EXCLUDED.attempts);

-- name: insert_referrals
INSERT INTO referral_mappings (
    referral_code, target_user_id, created_by_user_id, target_name, created_by_name, created_at
)
SELECT referral_code, target_user_id, created_by_user_id, target_name, created_by_name, to_timestamp(created_at / 1000.0)
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[])
    AS new (referral_code, target_user_id, created_by_user_id, target_name, created_by_name, created_at)
ORDER BY referral_code
ON CONFLICT (referral_code) DO NOTHING;

-- name: insert_reports
-- The index that it relies on holds only rows of the cluster's own.
INSERT INTO reports (keepline_id, room_id, reporter_id, reported_id, reason, reported_at, session_data)
SELECT keepline_id, room_id, reporter_id, reported_id, reason, to_timestamp(reported_at / 1000.0), session_data
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::jsonb[])
    AS new (keepline_id, room_id, reporter_id, reported_id, reason, reported_at, session_data)
ORDER BY keepline_id
ON CONFLICT (keepline_id) WHERE keepline_id IS NOT NULL DO NOTHING;

-- name: insert_partitioned_reports
-- In the place of insert_reports where the table cannot have the index, under the lock of one who writes reports.
INSERT INTO reports (keepline_id, room_id, reporter_id, reported_id, reason, reported_at, session_data)
SELECT keepline_id, room_id, reporter_id, reported_id, reason, to_timestamp(reported_at / 1000.0), session_data
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[], $7::jsonb[])
    AS new (keepline_id, room_id, reporter_id, reported_id, reason, reported_at, session_data)
WHERE NOT EXISTS (SELECT FROM reports AS known WHERE known.keepline_id = new.keepline_id)
ORDER BY keepline_id;

-- name: partitioned
SELECT relname FROM pg_class
WHERE oid IN (to_regclass('chat_history'), to_regclass('reports')) AND relkind = 'p';
