-- auth.sql - who is asking: one function call a request.

-- row: auth_ping
--   one int4

-- name: auth_ping :one auth_ping
-- The database answers.
SELECT 1 AS one;
