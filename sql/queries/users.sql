-- users.sql - accounts, their teams, their one-time tokens.

-- row: user
--   id uuid, email text, name text, status text, platform_role text, password_hash text?, must_change_password bool,
--   created_at timestamptz, email_verified_at timestamptz?, row_age_s int8

-- name: user_by_email_lock :one user
-- The account of an address, locked until the end of the transaction.
SELECT id, email, name, status, platform_role, password_hash, must_change_password, created_at, email_verified_at,
       extract(epoch FROM now() - created_at)::int8 AS row_age_s
  FROM users WHERE email = :email::text FOR UPDATE;

-- name: user_by_email :one user
-- The account of an address.
SELECT id, email, name, status, platform_role, password_hash, must_change_password, created_at, email_verified_at,
       extract(epoch FROM now() - created_at)::int8 AS row_age_s
  FROM users WHERE email = :email::text;

-- name: user_lock :one user
-- An account, locked until the end of the transaction.
SELECT id, email, name, status, platform_role, password_hash, must_change_password, created_at, email_verified_at,
       extract(epoch FROM now() - created_at)::int8 AS row_age_s
  FROM users WHERE id = :id::uuid FOR UPDATE;

-- name: user_share :one user
-- An account that shall not be disabled before this transaction ends.
SELECT id, email, name, status, platform_role, password_hash, must_change_password, created_at, email_verified_at,
       extract(epoch FROM now() - created_at)::int8 AS row_age_s
  FROM users WHERE id = :id::uuid FOR SHARE;

-- name: user_active_share :one user
-- The active account of an address, not to be disabled before this transaction ends.
SELECT id, email, name, status, platform_role, password_hash, must_change_password, created_at, email_verified_at,
       extract(epoch FROM now() - created_at)::int8 AS row_age_s
  FROM users WHERE email = :email::text AND status = 'active' FOR SHARE;

-- name: user_insert :exec
-- A new account.
INSERT INTO users (id, source, email, name, status, platform_role, password_hash, password_changed_at, webauthn_handle,
       email_verified_at, activated_at)
VALUES (:id::uuid, :source::text, :email::text, :name::text, :status::text, :platform_role::text, :password_hash::text?,
       CASE WHEN :password_hash::text? IS NULL THEN NULL ELSE now() END, :handle::bytea,
       CASE WHEN :status::text = 'active' THEN now() END, CASE WHEN :status::text = 'active' THEN now() END);

-- name: user_remove :exec
-- Forgets a sign-up that was never activated.
DELETE FROM users WHERE id = :id::uuid AND status = 'inactive';

-- name: user_activate :exec
-- The sign-up that made the token takes effect: its name, its password.
UPDATE users SET status = 'active', name = :name::text, password_hash = :password_hash::text, password_changed_at = now(),
       email_verified_at = now(), activated_at = now(), updated_at = now(),
       platform_role = CASE WHEN :admin::bool THEN 'admin' ELSE platform_role END
 WHERE id = :id::uuid AND status = 'inactive';

-- name: user_rename :exec
-- A person's name.
UPDATE users SET name = :name::text, updated_at = now() WHERE id = :id::uuid;

-- name: user_rehash :exec
-- The same password in the present form.
UPDATE users SET password_hash = :password_hash::text WHERE id = :id::uuid AND password_hash = :old::text;

-- name: user_make_admin :exec
-- Gives the platform role.
UPDATE users SET platform_role = :platform_role::text, updated_at = now() WHERE id = :id::uuid;

-- name: user_set_password :exec
-- A new password, set by the operator of the machine.
UPDATE users SET password_hash = :password_hash::text, password_changed_at = now(), updated_at = now() WHERE id = :id::uuid;

-- name: platform_bootstrap :exec
-- True for the first caller only: the platform has its first administrator.
UPDATE platform_state SET admin_bootstrapped_at = now() WHERE admin_bootstrapped_at IS NULL;

-- name: users_sweep_inactive :exec
-- Sign-ups that nobody activated within seven days.
DELETE FROM users WHERE ctid IN (SELECT ctid FROM users WHERE status = 'inactive' AND created_at < now() - interval '7 days' LIMIT 10000);

-- name: token_insert :exec
-- A one-time token; only its hash is stored.
INSERT INTO one_time_tokens (token_hash, id, user_id, purpose, payload, ip, expires_at)
VALUES (:hash::bytea, :id::uuid, :user::uuid?, :purpose::text, :payload::jsonb, :ip::text?::inet, now() + make_interval(secs => :ttl::int8));

-- row: token
--   id uuid, user_id uuid?, payload jsonb

-- name: token_use :one token
-- Takes a token: the first caller gets it, nobody else.
UPDATE one_time_tokens SET used_at = now()
 WHERE token_hash = :hash::bytea AND purpose = :purpose::text AND used_at IS NULL AND expires_at > now()
RETURNING id, user_id, payload;

-- row: count
--   n int8

-- name: token_count_recent :one count
-- How many tokens of a purpose the account got in the last hour.
SELECT count(*) AS n FROM one_time_tokens WHERE user_id = :user::uuid AND purpose = :purpose::text AND created_at > now() - interval '1 hour';

-- name: token_status :one count
-- Whether the account of a token is active already (1), to tell "already activated" from "unknown".
SELECT count(*) AS n FROM one_time_tokens t JOIN users u ON u.id = t.user_id
 WHERE t.token_hash = :hash::bytea AND t.purpose = :purpose::text AND u.status = 'active';

-- name: tokens_sweep :exec
-- Forgets tokens that expired a day ago.
DELETE FROM one_time_tokens WHERE ctid IN (SELECT ctid FROM one_time_tokens WHERE expires_at < now() - interval '1 day' LIMIT 10000);
