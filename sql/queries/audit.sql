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

-- name: audit_verify_all :many audit_check
-- Every team's chain, with the first row that does not verify.
SELECT h.team_id, v.checked, v.first_bad, v.reason FROM audit_heads h, LATERAL audit_verify(h.team_id) v ORDER BY 1;
