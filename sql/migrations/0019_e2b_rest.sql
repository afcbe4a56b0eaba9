-- 0019_e2b_rest.sql - templates that a team shows to all others, and the guest's memory cache (spec 03 §2, spec 06 §6).

-- A team shows or deletes its own; it reads others' as 0002 says.
CREATE POLICY change ON templates FOR UPDATE TO hutch_app USING (team_id = current_team()) WITH CHECK (team_id = current_team());
GRANT UPDATE (visibility, deleted_at) ON templates TO hutch_app;

-- Of mem_guest, what the guest would give back: its page cache. Chunks of older hosts have none.
ALTER TABLE capsule_metrics ADD mem_cache bigint[] NOT NULL DEFAULT '{}';
