-- relay.sql - the one process that numbers events (spec 04 §1.2). The statements of one turn, in order.

-- row: relay_head
--   gpos int8

-- row: relayed
--   gpos int8, seq int8, v int4, id uuid, at timestamptz, team_id uuid, capsule_id uuid?, type text, category text,
--   actor_type text, actor_id text?, actor_name text?, resource_type text?, resource_id text?, data jsonb, request_id text?

-- name: relay_lock :one relay_head
-- The number given last; no row: another relay is at work.
SELECT gpos FROM event_relay FOR UPDATE SKIP LOCKED;

-- name: relay_take :many relayed
-- Numbers the next 500 events, dense per team and over all, in the order of their writing.
WITH fresh AS (
	SELECT id, at, team_id, pos FROM events WHERE seq IS NULL ORDER BY pos LIMIT 500
), placed AS (
	SELECT id, at, team_id, pos, row_number() OVER (PARTITION BY team_id ORDER BY pos) AS k,
		count(*) OVER (PARTITION BY team_id) AS n, row_number() OVER (ORDER BY pos) AS g
	  FROM fresh
), heads AS (
	INSERT INTO event_heads AS h (team_id, seq) SELECT team_id, count(*) FROM fresh GROUP BY team_id ORDER BY team_id
	ON CONFLICT (team_id) DO UPDATE SET seq = h.seq + excluded.seq RETURNING h.team_id, h.seq
), numbered AS (
	UPDATE events e SET seq = h.seq - p.n + p.k, gpos = :gpos::int8 + p.g
	  FROM placed p JOIN heads h ON h.team_id = p.team_id
	 WHERE e.id = p.id AND e.at = p.at
	RETURNING e.gpos, e.seq, e.v::int AS v, e.id, e.at, e.team_id, e.capsule_id, e.type, e.category, e.actor_type,
		e.actor_id, e.actor_name, e.resource_type, e.resource_id, e.data, e.request_id
)
SELECT * FROM numbered ORDER BY gpos;

-- name: relay_head_set :exec
-- The last number given.
UPDATE event_relay SET gpos = :gpos::int8;

-- name: relay_recent :many relayed
-- What a starting relay tells once more: its predecessor may have died before it could.
SELECT gpos, seq, v::int AS v, id, at, team_id, capsule_id, type, category, actor_type, actor_id, actor_name,
	resource_type, resource_id, data, request_id
  FROM events WHERE gpos > (SELECT r.gpos FROM event_relay r) - 20000 AND at > now() - interval '1 minute' ORDER BY gpos;
