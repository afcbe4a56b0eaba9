-- audit.sql - the audit chain.

-- row: audit_seq
--   seq int8

-- name: audit_append :one audit_seq
-- Writes a row into the team's chain; returns its number.
SELECT audit_append(:id::uuid, :team::uuid, :actor_type::text, :actor_id::text?, :actor_name::text, :actor_user::uuid?,
       :subject::uuid?, :resource_type::text, :resource_id::text?, :action::text, :event::text?, :scope::text,
       :status::text, :metadata::jsonb, :ip::text?, :user_agent::text?, :request_id::text?) AS seq;

-- row: audit_check
--   team_id uuid, checked int8, first_bad int8?, reason text?

-- row: audit_chain
--   team_id uuid, seq int8

-- name: audit_chains :many audit_chain
-- Every team, with its chain's length.
SELECT t.id AS team_id, coalesce(h.seq, 0) AS seq FROM teams t LEFT JOIN audit_heads h ON h.team_id = t.id
 WHERE (:after::uuid? IS NULL OR t.id > :after::uuid?) ORDER BY t.id LIMIT :limit::int4;

-- row: audit_doubt
--   seq int8, reason text

-- name: audit_batches_verify :many audit_doubt
-- Rows audit/anonymise of the Platform whose batch is not what they say.
SELECT seq, reason FROM audit_batches_verify();

-- name: audit_finding :one audit_seq
-- The row that tells of this finding already.
SELECT a.seq FROM audit_logs a
 WHERE a.team_id = '00000000-0000-0000-0000-000000000000' AND a.resource_type = 'audit' AND a.action = 'verify_failed'
   AND a.metadata @> :finding::jsonb LIMIT 1;

-- row: audit_entry
--   id uuid, actor_type text, actor_id text?, actor_name text, resource_type text, resource_id text?, action text, scope text,
--   status text, metadata jsonb, created_at text, at timestamptz, seq int8, event text?, ip text?, user_agent text?,
--   request_id text?, team_id uuid, hash text

-- part: entries
SELECT a.id, a.actor_type, a.actor_id, a.actor_name, a.resource_type, a.resource_id, a.action, a.scope, a.status, a.metadata,
       to_char(a.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at, a.created_at AS at, a.seq, a.event,
       host(a.ip) AS ip, a.user_agent, a.request_id, a.team_id, encode(a.hash, 'hex') AS hash
  FROM audit_logs a

-- part: entries_page
AND (:types::text[]? IS NULL OR a.resource_type = ANY (:types::text[]?))
   AND (:actions::text[]? IS NULL OR a.action = ANY (:actions::text[]?) OR a.event = ANY (:actions::text[]?))
   AND (:actor_id::text? IS NULL OR a.actor_id = :actor_id::text?)
   AND (:actor_type::text? IS NULL OR a.actor_type = :actor_type::text?)
   AND (:resource_id::text? IS NULL OR a.resource_id = :resource_id::text?)
   AND (:status::text? IS NULL OR a.status = :status::text?)
   AND (:scope::text? IS NULL OR a.scope = :scope::text?)
   AND (:ip::text? IS NULL OR a.ip <<= :ip::text?::inet)
   AND (:request_id::text? IS NULL OR a.request_id = :request_id::text?)
   AND (:person::uuid? IS NULL OR a.actor_user = :person::uuid? OR a.subject_user = :person::uuid?)
   AND a.created_at >= coalesce(:from::timestamptz?, '-infinity') AND a.created_at < coalesce(:to::timestamptz?, 'infinity')
   AND (a.created_at, a.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY a.created_at DESC, a.id DESC LIMIT :limit::int4

-- name: audit_list :many audit_entry
-- A page of one team's log, newest first; with scopes_all also rows of scope admin.
{{entries}}
 WHERE a.team_id = :team::uuid
   AND (:scopes_all::bool OR a.scope = 'team')
   {{entries_page}};

-- name: audit_list_all :many audit_entry
-- The same of all teams.
{{entries}}
 WHERE true
   {{entries_page}};

-- row: audit_stat
--   kind text, name text, n int8

-- name: audit_stats :many audit_stat
-- Counts of one team's log, or with team NULL of all: in total, of the last day, by action, actor, status and day.
WITH rows AS (
  SELECT a.resource_type || '/' || a.action AS action, coalesce(a.actor_id, a.actor_type) AS actor, a.status, a.created_at FROM audit_logs a
   WHERE (:team::uuid? IS NULL OR a.team_id = :team::uuid?) AND (:scopes_all::bool OR a.scope = 'team')
     AND a.created_at >= :from::timestamptz AND a.created_at < :to::timestamptz)
SELECT 'total' AS kind, '' AS name, count(*) AS n FROM rows
UNION ALL SELECT 'last_24h', '', count(*) FROM rows WHERE created_at > now() - interval '1 day'
UNION ALL SELECT * FROM (SELECT 'by_action', action, count(*) FROM rows GROUP BY 2 ORDER BY 3 DESC, 2 LIMIT 10) x
UNION ALL SELECT * FROM (SELECT 'by_actor', actor, count(*) FROM rows GROUP BY 2 ORDER BY 3 DESC, 2 LIMIT 10) x
UNION ALL SELECT 'by_status', status, count(*) FROM rows GROUP BY 2
UNION ALL SELECT * FROM (SELECT 'by_day', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), count(*) FROM rows GROUP BY 2 ORDER BY 2) x;

-- name: audit_range :one audit_check
-- The first row of a range of a team's chain that does not verify.
SELECT :team::uuid AS team_id, v.checked, v.first_bad, v.reason FROM audit_verify(:team::uuid, :from_seq::int8, :to_seq::int8?) v;

-- row: audit_end
--   team_id uuid, seq int8, hash bytea, at timestamptz

-- name: audit_head :one audit_end
-- The end of a team's chain.
SELECT team_id, seq, hash, at FROM audit_heads WHERE team_id = :team::uuid;

-- name: audit_news :many audit_end
-- Chains that grew since their last checkpoint.
SELECT h.team_id, h.seq, h.hash, h.at FROM audit_heads h
 WHERE h.seq > coalesce((SELECT max(c.seq) FROM audit_checkpoints c WHERE c.team_id = h.team_id), 0) ORDER BY h.team_id LIMIT 1000;

-- row: audit_mark
--   team_id uuid, seq int8, hash bytea, at timestamptz, key_id text, signature bytea, present bytea?

-- name: audit_marks :many audit_mark
-- Checkpoints of a team in a range, with the hash that the row has now.
SELECT c.team_id, c.seq, c.hash, c.at, c.key_id, c.signature, a.hash AS present
  FROM audit_checkpoints c LEFT JOIN audit_logs a ON a.team_id = c.team_id AND a.seq = c.seq
 WHERE c.team_id = :team::uuid AND c.seq >= :from_seq::int8 AND c.seq <= coalesce(:to_seq::int8?, 9223372036854775807) ORDER BY c.seq LIMIT 20000;

-- name: audit_mark_insert :exec
-- A new checkpoint.
INSERT INTO audit_checkpoints (team_id, seq, hash, at, key_id, signature)
VALUES (:team::uuid, :seq::int8, :hash::bytea, :at::timestamptz, :key_id::text, :signature::bytea) ON CONFLICT DO NOTHING;

-- name: audit_row_hash :one audit_end
-- What one row's hash is now.
SELECT team_id, seq, hash, created_at AS at FROM audit_logs WHERE team_id = :team::uuid AND seq = :seq::int8;

-- row: partitions_made
--   n int4

-- name: month_partitions :one partitions_made
-- Makes the partitions of the coming months; drops old ones of the keys' usage.
SELECT month_partitions(:keep_days::int4) AS n;
