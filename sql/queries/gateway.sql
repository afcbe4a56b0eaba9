-- gateway.sql - what the data plane has to know of a capsule: where it runs, and as which epoch.

-- row: gateway_place
--   owner_id uuid?, visibility text, state text, epoch int8, team_id uuid, address text, paused_by text?, auto_resume text

-- name: gateway_capsule :one gateway_place
-- The caller's capsule in any state; the tenant was set by the authentication before it on the pipeline.
SELECT c.owner_id, c.visibility, c.observed_state AS state, c.epoch, c.team_id, coalesce(h.dial, '') AS address,
       c.paused_by, c.auto_resume
  FROM capsules c LEFT JOIN hosts h ON h.id = c.host_id
 WHERE c.id = :capsule::uuid AND c.team_id = current_team();
