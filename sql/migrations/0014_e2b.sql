-- 0014_e2b.sql - what the routes of spec 06 need: names of snapshots, and who put a capsule to sleep.

-- The name that clients call a snapshot by, in the name space of the team's templates; "default" is the newest ready one.
ALTER TABLE snapshots ADD alias text CHECK (alias ~ '^[a-z0-9_-]{1,64}$');
CREATE INDEX snapshots_alias ON snapshots (team_id, alias, created_at DESC, id DESC) WHERE alias IS NOT NULL;

-- client: by a pause of these routes, which traffic may wake from (spec 02 §1.5).
ALTER TABLE capsules DROP CONSTRAINT capsules_paused_by_check,
	ADD CONSTRAINT capsules_paused_by_check CHECK (paused_by IN ('user','idle','lifetime','snapshot','host','drain','schedule','client'));
