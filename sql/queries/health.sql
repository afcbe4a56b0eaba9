-- health.sql - does the database answer.

-- row: pong
--   one int4

-- name: ping :one pong
-- The database answers.
SELECT 1 AS one;
