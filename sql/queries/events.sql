-- events.sql - the outbox: written by everybody, numbered by the relay.

-- name: event_insert :exec
-- A fact, in the transaction of the change. No RETURNING: the writer may not be allowed to read the row.
INSERT INTO events (id, team_id, user_id, capsule_id, type, category, actor_type, actor_id, actor_name,
	resource_type, resource_id, data, request_id)
VALUES (:id::uuid, :team::uuid, :user::uuid?, :capsule::uuid?, :type::text, :category::text, :actor_type::text,
	:actor_id::text?, :actor_name::text?, :resource_type::text?, :resource_id::text?, :data::text::jsonb, :request::text?);
