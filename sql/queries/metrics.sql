-- metrics.sql - what capsules used, and what teams held.

-- name: metrics_store :exec
-- Chunks of tiers as a host sends them: only of capsules that it has, or had last; none of purged teams.
INSERT INTO capsule_metrics (team_id, capsule_id, tier, from_at, step_ms, cpu, mem, mem_guest, mem_cache, disk, rx, tx, rd, wr)
SELECT c.team_id, c.id, m.tier, to_timestamp(m.from_s), m.step_ms, m.cpu, m.mem, m.mem_guest, coalesce(m.mem_cache, '{}'), m.disk, m.rx, m.tx, m.rd, m.wr
  FROM jsonb_to_recordset(:rows::jsonb) AS m(id uuid, tier text, from_s int8, step_ms int4, cpu real[], mem int8[], mem_guest int8[], mem_cache int8[],
       disk int8[], rx int8[], tx int8[], rd int8[], wr int8[])
  JOIN hosts h ON h.id = :host::uuid
  JOIN capsules c ON c.id = m.id AND (c.host_id = h.id OR (c.host_id IS NULL AND (h.team_id IS NULL OR h.team_id = c.team_id)))
  JOIN teams t ON t.id = c.team_id AND t.purged_at IS NULL
 WHERE m.tier IN ('10m','2h','24h') AND m.step_ms BETWEEN 1000 AND 300000 AND cardinality(m.cpu) BETWEEN 1 AND 600
   AND to_timestamp(m.from_s) BETWEEN now() - interval '2 days' AND now() + interval '1 hour'
    ON CONFLICT (capsule_id, tier, from_at) DO UPDATE SET cpu = series_join(capsule_metrics.cpu, excluded.cpu),
       mem = series_join(capsule_metrics.mem, excluded.mem), mem_guest = series_join(capsule_metrics.mem_guest, excluded.mem_guest),
       mem_cache = series_join(capsule_metrics.mem_cache, excluded.mem_cache), disk = series_join(capsule_metrics.disk, excluded.disk), rx = series_join(capsule_metrics.rx, excluded.rx),
       tx = series_join(capsule_metrics.tx, excluded.tx), rd = series_join(capsule_metrics.rd, excluded.rd),
       wr = series_join(capsule_metrics.wr, excluded.wr);

-- row: metric_tenant
--   team text

-- name: metrics_tenant :one metric_tenant
-- The rest of the transaction is the team's.
SELECT set_config('hutch.team', :team::uuid::text, true) AS team;

-- row: metric_point
--   at int8, cpu float8, mem int8, mem_guest int8?, mem_cache int8?, disk int8, rx int8, tx int8, rd int8, wr int8

-- name: metrics_read :many metric_point
-- A capsule's points of a tier since a moment, oldest first.
SELECT (extract(epoch FROM m.from_at) + (p.i - 1) * m.step_ms / 1000)::int8 AS at, p.cpu::float8 AS cpu, p.mem, p.mem_guest, p.mem_cache, p.disk,
       coalesce(p.rx, 0) AS rx, coalesce(p.tx, 0) AS tx, coalesce(p.rd, 0) AS rd, coalesce(p.wr, 0) AS wr
  FROM capsule_metrics m, unnest(m.cpu, m.mem, m.mem_guest, m.mem_cache, m.disk, m.rx, m.tx, m.rd, m.wr)
       WITH ORDINALITY AS p(cpu, mem, mem_guest, mem_cache, disk, rx, tx, rd, wr, i)
 WHERE m.team_id = :team::uuid AND m.capsule_id = :capsule::uuid AND m.tier = :tier::text
   AND m.from_at > now() - make_interval(secs => :seconds::int8 + 7200) AND p.cpu IS NOT NULL AND p.mem IS NOT NULL AND p.disk IS NOT NULL
   AND m.from_at + make_interval(secs => (p.i - 1) * m.step_ms / 1000) >= now() - make_interval(secs => :seconds::int8)
 ORDER BY 1;

-- name: team_metrics_sample :exec
-- One row per team that holds something in this slot of 10 s, or held something in the slots before. Twice: the same rows.
WITH slot AS (SELECT to_timestamp(floor(extract(epoch FROM now()) / 10) * 10) AS at),
     held AS (SELECT team_id, count(*) FILTER (WHERE observed_state = 'running') AS running, sum(vcpus) AS vcpus, sum(memory_mb) AS mb
                FROM capsules WHERE observed_state IN ('starting','running','pausing','resuming','hibernating','missing')
                  OR (observed_state = 'paused' AND residency IS DISTINCT FROM 'disk') GROUP BY team_id),
     before AS (SELECT DISTINCT ON (s.team_id) s.team_id, s.running_count + s.vcpus_reserved + s.memory_mb_reserved > 0 AS some
                  FROM team_metric_snapshots s, slot WHERE s.sampled_at >= slot.at - interval '5 minutes' AND s.sampled_at < slot.at
                 ORDER BY s.team_id, s.sampled_at DESC)
INSERT INTO team_metric_snapshots (team_id, sampled_at, running_count, vcpus_reserved, memory_mb_reserved)
SELECT t.id, slot.at, coalesce(held.running, 0), coalesce(held.vcpus, 0), coalesce(held.mb, 0)
  FROM slot, held FULL JOIN before USING (team_id) JOIN teams t ON t.id = team_id AND t.deleted_at IS NULL
 WHERE held.team_id IS NOT NULL OR before.some
    ON CONFLICT (team_id, sampled_at) DO UPDATE SET running_count = excluded.running_count,
       vcpus_reserved = excluded.vcpus_reserved, memory_mb_reserved = excluded.memory_mb_reserved;

-- name: retain_metrics :exec
-- The fine tiers live a day, the coarse one 30.
DELETE FROM capsule_metrics WHERE (capsule_id, tier, from_at) IN (SELECT capsule_id, tier, from_at FROM capsule_metrics
 WHERE from_at < now() - CASE tier WHEN '24h' THEN interval '30 days' ELSE interval '1 day' END LIMIT 10000);

-- name: retain_team_metrics :exec
-- Samples of teams older than 60 days.
DELETE FROM team_metric_snapshots WHERE (team_id, sampled_at) IN
	(SELECT team_id, sampled_at FROM team_metric_snapshots WHERE sampled_at < now() - interval '60 days' LIMIT 10000);

-- row: metric_partitions
--   n int4

-- name: metrics_partitions_make :one metric_partitions
-- Partitions of this month and the next; old ones go.
SELECT metrics_partitions(:keep_days::int4) AS n;
