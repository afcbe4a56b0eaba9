-- people.sql - what hutchctl shows of accounts.

-- row: admin
--   id uuid, email text, name text, status text

-- name: admin_list :many admin
-- The platform administrators.
SELECT id, email, name, status FROM users WHERE platform_role = 'admin' AND status <> 'deleted' ORDER BY email;
