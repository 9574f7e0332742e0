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
