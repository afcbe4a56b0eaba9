-- gateway.sql - what the data plane has to know of a capsule: where it runs, and as which epoch.

-- row: gateway_place
--   owner_id uuid?, visibility text, state text, epoch int8, team_id uuid, address text, paused_by text?, auto_resume text

-- name: gateway_capsule :one gateway_place
-- The caller's capsule in any state; the tenant was set by the authentication before it on the pipeline.
SELECT c.owner_id, c.visibility, c.observed_state AS state, c.epoch, c.team_id, coalesce(h.dial, '') AS address,
       c.paused_by, c.auto_resume
  FROM capsules c LEFT JOIN hosts h ON h.id = c.host_id
 WHERE c.id = :capsule::uuid AND c.team_id = current_team();

-- row: gateway_door
--   team_id uuid, owner_id uuid?, visibility text, state text, epoch int8, address text, paused_by text?, auto_resume text,
--   public_traffic bool, ingress text, ports text

-- name: gateway_door_of :one gateway_door
-- A capsule of any team whose client shows no credential yet: where it is, what its ports are open to.
SELECT d.team_id, d.owner_id, d.visibility, d.state, d.epoch, d.address, d.paused_by, d.auto_resume, d.public_traffic, d.ingress, d.ports
  FROM capsule_door(:capsule::uuid) d;

-- row: gateway_tenant
--   team text

-- name: gateway_act_for :one gateway_tenant
-- What follows is done for this team.
SELECT set_config('hutch.team', :team::text, false) AS team;

-- row: gateway_clock
--   timeout_mode text, timeout_sec int4

-- name: gateway_clock_of :one gateway_clock
-- A capsule that traffic wakes has some time before it sleeps again (spec 06 §7).
SELECT timeout_mode, timeout_sec FROM capsules WHERE id = :capsule::uuid AND team_id = current_team();

-- row: gateway_running
--   id uuid

-- name: gateway_running_list :many gateway_running
-- Capsules that a signed URL without a name may mean.
SELECT r AS id FROM capsules_running(:limit::int4) r;
