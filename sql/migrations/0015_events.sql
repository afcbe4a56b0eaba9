-- 0015_events.sql - a team's and a user's events in the order of the relay's numbers: what a live stream replays.

CREATE INDEX ON events (team_id, gpos);
CREATE INDEX ON events (user_id, gpos) WHERE user_id IS NOT NULL;
