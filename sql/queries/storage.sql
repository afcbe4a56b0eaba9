-- storage.sql - storage connections and what lies in them (spec 05 §5.4).

-- row: connection
--   id uuid, team_id uuid?, user_id uuid?, name text, endpoint text, region text, bucket text, prefix text, path_style bool,
--   access_key_id text, status text, checked_at timestamptz?, last_error text?, created_at timestamptz

-- name: person_is :exec
-- Whose own connections are seen until the end of the transaction.
SELECT set_config('hutch.user', :user::uuid::text, true);

-- name: connection_list :many connection
-- Connections of the team and the caller's own, newest first.
SELECT id, team_id, user_id, name, endpoint, region, bucket, prefix, path_style, access_key_id, status, checked_at, last_error, created_at
  FROM storage_connections
 WHERE (team_id = :team::uuid? OR user_id = :user::uuid) AND deleting_at IS NULL
   AND (created_at, id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY created_at DESC, id DESC LIMIT :limit::int4;

-- name: connection_get :one connection
-- One connection of the team or the caller's own.
SELECT id, team_id, user_id, name, endpoint, region, bucket, prefix, path_style, access_key_id, status, checked_at, last_error, created_at
  FROM storage_connections
 WHERE id = :id::uuid AND (team_id = :team::uuid? OR user_id = :user::uuid) AND deleting_at IS NULL;

-- row: connection_secret
--   id uuid, team_id uuid?, user_id uuid?, name text, endpoint text, region text, bucket text, prefix text, path_style bool,
--   access_key_id text, secret_enc bytea, delete_objects bool, objects int8

-- name: connection_open :one connection_secret
-- With its sealed secret, for those who talk to the store. Locked.
SELECT id, team_id, user_id, name, endpoint, region, bucket, prefix, path_style, access_key_id, secret_enc, delete_objects, 0::int8 AS objects
  FROM storage_connections WHERE id = :id::uuid FOR NO KEY UPDATE;

-- name: connections_of_user :many connection_secret
-- What hangs on an account.
SELECT id, team_id, user_id, name, endpoint, region, bucket, prefix, path_style, access_key_id, secret_enc, delete_objects,
       (SELECT count(*) FROM objects o WHERE o.connection_id = c.id) AS objects
  FROM storage_connections c WHERE user_id = :user::uuid ORDER BY id;

-- name: connections_of_team :many connection_secret
-- What hangs on a team. Members' own connections are theirs, whatever team the objects in them were made in.
SELECT id, team_id, user_id, name, endpoint, region, bucket, prefix, path_style, access_key_id, secret_enc, delete_objects,
       (SELECT count(*) FROM objects o WHERE o.connection_id = c.id) AS objects
  FROM storage_connections c WHERE team_id = :team::uuid ORDER BY id;

-- name: connection_insert :exec
-- A new connection, tested before.
INSERT INTO storage_connections (id, team_id, user_id, name, endpoint, region, bucket, prefix, path_style, access_key_id,
       secret_enc, status, checked_at)
VALUES (:id::uuid, :team::uuid?, :user::uuid?, :name::text, :endpoint::text, :region::text, :bucket::text, :prefix::text,
       :path_style::bool, :access_key_id::text, :secret_enc::bytea, 'ok', now());

-- name: connection_update :exec
-- Changed and tested.
UPDATE storage_connections SET name = :name::text, endpoint = :endpoint::text, region = :region::text, bucket = :bucket::text,
       prefix = :prefix::text, path_style = :path_style::bool, access_key_id = :access_key_id::text, secret_enc = :secret_enc::bytea,
       status = 'ok', checked_at = now(), last_error = NULL, updated_at = now()
 WHERE id = :id::uuid;

-- name: connection_ending :exec
-- A job deletes it: objects first if wanted, the credentials last.
UPDATE storage_connections SET deleting_at = now(), delete_objects = :objects::bool, updated_at = now() WHERE id = :id::uuid;

-- name: connection_delete :exec
-- The credentials go; rows of objects that could not be deleted go with them.
DELETE FROM storage_connections WHERE id = :id::uuid;

-- row: doomed
--   id uuid, team_id uuid

-- name: objects_doomed :many doomed
-- Objects to be deleted from a connection that this job did not try in vain yet.
SELECT o.id, o.team_id FROM objects o
 WHERE o.connection_id = :connection::uuid
   AND NOT EXISTS (SELECT FROM job_items i WHERE i.job_id = :job::uuid AND i.target = wire_id('obj-', o.id) AND i.state = 'failed')
 ORDER BY o.id LIMIT 100;

-- name: object_forget :exec
-- Gone from the store.
DELETE FROM objects WHERE id = :id::uuid;
