-- scaling.sql - what stands ready on the platform's hosts, how many of these there are to be, and what is wrong with that (spec 02 §5.8).

-- row: scaling
--   generation int8, version text, pools jsonb, agent_pools jsonb, warm_memory_percent int4?, min_hosts int4?, max_hosts int4?, updated_at timestamptz?

-- part: scaling_columns
SELECT generation, CASE WHEN generation = 0 THEN '' ELSE generation || '-' || (extract(epoch FROM updated_at) * 1000000)::bigint END AS version, pools,
       (SELECT coalesce(jsonb_agg(p - 'shape' || (p->'shape') ORDER BY n), '[]') FROM jsonb_array_elements(pools) WITH ORDINALITY AS l(p, n)) AS agent_pools,
       warm_memory_percent, min_hosts, max_hosts, CASE WHEN generation > 0 THEN updated_at END AS updated_at
  FROM scaling

-- name: scaling_get :one scaling
-- The setting; its version names it to hosts, also when the database was restored to an earlier day.
{{scaling_columns}};

-- name: scaling_lock :one scaling
-- The setting, locked.
{{scaling_columns}} FOR UPDATE;

-- row: scaling_changed
--   changed jsonb

-- name: scaling_set :one scaling_changed
-- Another setting: the names of what changed; none when it is the same.
UPDATE scaling s SET pools = n.pools, warm_memory_percent = n.warm, min_hosts = n.least, max_hosts = n.most, generation = s.generation + 1, updated_at = clock_timestamp()
  FROM scaling o, (SELECT :pools::jsonb AS pools, :warm::int4? AS warm, :min_hosts::int4? AS least, :max_hosts::int4? AS most) n
 WHERE o.one = s.one AND (o.generation = 0 OR (o.pools, o.warm_memory_percent, o.min_hosts, o.max_hosts) IS DISTINCT FROM (n.pools, n.warm, n.least, n.most))
RETURNING to_jsonb(array_remove(ARRAY[CASE WHEN o.pools IS DISTINCT FROM s.pools THEN 'pools' END,
       CASE WHEN o.warm_memory_percent IS DISTINCT FROM s.warm_memory_percent THEN 'warm_memory_percent' END,
       CASE WHEN o.min_hosts IS DISTINCT FROM s.min_hosts THEN 'min_hosts' END,
       CASE WHEN o.max_hosts IS DISTINCT FROM s.max_hosts THEN 'max_hosts' END], NULL)) AS changed;

-- row: scaling_name
--   name text

-- name: scaling_unknown :one scaling_name
-- The first of these names that no template has.
SELECT n.name FROM unnest(:names::text[]) WITH ORDINALITY AS n(name, i)
 WHERE NOT EXISTS (SELECT FROM templates t WHERE t.name = n.name AND t.deleted_at IS NULL) ORDER BY n.i LIMIT 1;

-- row: scaling_state
--   takes int8, with_room int8, wanted int8?, behind int8

-- name: scaling_state_get :one scaling_state
-- The platform's hosts as they are: that take capsules, that have room, that are wanted, that hold another setting.
SELECT n.takes, n.with_room, n.wanted, (SELECT count(*) FROM hosts h WHERE h.deleted_at IS NULL AND h.type = 'regular' AND h.status IN ('online','draining')
          AND h.scaling <> :version::text) AS behind
  FROM hosts_needed(:mem_percent::int8, :cpu_percent::int8, :tcg_percent::int8) n;

-- name: host_scaled :exec
-- The host holds this version of the setting.
UPDATE hosts SET scaling = :version::text WHERE id = :id::uuid AND scaling <> :version::text;

-- row: scaling_alert
--   rule text, since timestamptz, told_at timestamptz?, value int8, threshold int8

-- name: scaling_alerts :many scaling_alert
-- What is wrong, and since when.
SELECT rule, since, told_at, value, threshold FROM scaling_alerts WHERE NOT good ORDER BY rule;

-- name: scaling_alert_bad :exec
-- The condition holds.
INSERT INTO scaling_alerts (rule, value, threshold) VALUES (:rule::text, :value::int8, :threshold::int8)
    ON CONFLICT (rule) DO UPDATE SET good = false, value = excluded.value, threshold = excluded.threshold;

-- name: scaling_alert_due :exec
-- It holds for so long that operators are told: once.
UPDATE scaling_alerts SET told_at = now() WHERE rule = :rule::text AND NOT good AND told_at IS NULL AND since <= now() - make_interval(secs => :seconds::int8);

-- name: scaling_alert_good :exec
-- It does not hold, for the first time.
UPDATE scaling_alerts SET good = true WHERE rule = :rule::text AND NOT good AND told_at IS NOT NULL;

-- name: scaling_alert_over :one scaling_alert
-- It did not hold twice, or nobody was told: it is over.
DELETE FROM scaling_alerts WHERE rule = :rule::text AND (good OR told_at IS NULL) RETURNING rule, since, told_at, value, threshold;
