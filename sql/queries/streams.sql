-- streams.sql - tickets of streams, and the right to go on looking (spec 02 §3.1).

-- name: ticket_insert :exec
-- A ticket; none for users and teams that ended meanwhile (spec 01 §1.2: the rows are read FOR SHARE). Late ones of the team go.
WITH old AS (DELETE FROM stream_tickets WHERE token_hash IN (SELECT token_hash FROM stream_tickets
                WHERE expires_at < now() ORDER BY token_hash LIMIT 100)),
     u AS (SELECT id FROM users WHERE id = :user::uuid AND status = 'active' FOR SHARE),
     t AS (SELECT id FROM teams WHERE id = :team::uuid AND deleted_at IS NULL FOR SHARE)
INSERT INTO stream_tickets (token_hash, user_id, session_id, key_id, team_id, capsule_id, purpose, port, origin, expires_at)
SELECT :hash::bytea, u.id, :session::uuid?, :key::uuid?, t.id, :capsule::uuid?, :purpose::text, :port::int4?, :origin::text?,
       now() + make_interval(secs => :seconds::int8)
  FROM u, t;

-- row: ticket
--   user_id uuid, session_id uuid?, key_id uuid?, key_hash bytea?, team_id uuid, capsule_id uuid?, purpose text, port int4?,
--   origin text?

-- name: ticket_use :one ticket
-- Uses a ticket up.
SELECT user_id, session_id, key_id, key_hash, team_id, capsule_id, purpose, port, origin FROM ticket_take(:hash::bytea);

-- row: stream_right
--   n int4, user_id uuid?, role text?, platform_role text, user_status text?, scopes text[]?, team_live bool, key_state text,
--   must_change_password bool, has_factor bool, team_mfa bool, capsule_state text?, epoch int8?, visibility text?, owner_id uuid?

-- name: stream_check :many stream_right
-- All open streams of a process at once.
SELECT n, user_id, role, platform_role, user_status, scopes, team_live, key_state, must_change_password, has_factor, team_mfa,
       capsule_state, epoch, visibility, owner_id
  FROM stream_rights(:asked::text::jsonb);

-- name: tickets_sweep :exec
-- Late tickets, of teams that make no more, too.
DELETE FROM stream_tickets WHERE token_hash IN (SELECT token_hash FROM stream_tickets WHERE expires_at < now() LIMIT 10000);
