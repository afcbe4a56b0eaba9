-- accounts.sql - what a person does with his own account: proofs, factors, logins, address, password.

-- row: taken
--   failures int4

-- name: throttle_take :one taken
-- An attempt begins and counts as failed until it is known better; no row: there were too many.
INSERT INTO auth_throttle AS t (subject, kind, failures, window_start, month_failures, month_start)
VALUES (:subject::bytea, :kind::text, 1, now(), 1, now())
    ON CONFLICT (subject, kind) DO UPDATE SET
       failures = CASE WHEN t.window_start > now() - interval '15 minutes' THEN t.failures + 1 ELSE 1 END,
       window_start = CASE WHEN t.window_start > now() - interval '15 minutes' THEN t.window_start ELSE now() END,
       month_failures = CASE WHEN t.month_start > now() - interval '30 days' THEN t.month_failures + 1 ELSE 1 END,
       month_start = CASE WHEN t.month_start > now() - interval '30 days' THEN t.month_start ELSE now() END
 WHERE (t.window_start <= now() - interval '15 minutes' OR t.failures < :most::int4)
   AND (t.month_start <= now() - interval '30 days' OR t.month_failures < :most_month::int4)
RETURNING t.failures;

-- row: throttled
--   wait_s int8

-- name: throttle_wait :one throttled
-- How long the account has to wait: for the window, or for the month.
SELECT greatest(1, extract(epoch FROM CASE WHEN month_failures >= :most_month::int4 THEN month_start + interval '30 days'
       ELSE window_start + interval '15 minutes' END - now()))::int8 AS wait_s
  FROM auth_throttle WHERE subject = :subject::bytea AND kind = :kind::text;

-- name: throttle_good :exec
-- The attempt was a good one. whole: the window is cleared, too.
UPDATE auth_throttle SET failures = CASE WHEN :whole::bool THEN 0 ELSE greatest(0, failures - 1) END,
       month_failures = greatest(0, month_failures - 1)
 WHERE subject = :subject::bytea AND kind = :kind::text;

-- name: throttle_forget :exec
-- A reset by mail: nothing counts any more.
DELETE FROM auth_throttle WHERE subject = :subject::bytea;

-- row: failure_log
--   due bool, before int4

-- name: throttle_log :one failure_log
-- Is a row in the audit log due for this failure (one in ten minutes), and how many had none before?
UPDATE auth_throttle t SET logged_at = CASE WHEN o.due THEN now() ELSE t.logged_at END,
       unlogged = CASE WHEN o.due THEN 0 ELSE t.unlogged + 1 END
  FROM (SELECT subject, kind, unlogged, coalesce(logged_at < now() - interval '10 minutes', true) AS due FROM auth_throttle
         WHERE subject = :subject::bytea AND kind = :kind::text FOR UPDATE) o
 WHERE t.subject = o.subject AND t.kind = o.kind
RETURNING o.due, o.unlogged AS before;

-- name: throttle_sweep :exec
-- Counters nobody needs any more.
DELETE FROM auth_throttle WHERE ctid IN (SELECT ctid FROM auth_throttle WHERE window_start < now() - interval '1 day'
       AND month_start < now() - interval '30 days' LIMIT 10000);

-- row: device
--   known bool, met bool

-- name: device_of :one device
-- Did the user sign in from this device within 60 days; did he ever sign in?
SELECT EXISTS (SELECT FROM login_sessions WHERE user_id = :user::uuid? AND device_hash = :hash::bytea?
               AND created_at > now() - interval '60 days') AS known,
       EXISTS (SELECT FROM login_sessions WHERE user_id = :user::uuid?) AS met;

-- row: number
--   n int8

-- name: mails_recent :one number
-- Mails of a template to an address within the hour.
SELECT email_recent(:to_hash::bytea, :template::text) AS n;

-- row: purge_day
--   day text

-- name: user_purge_day :one purge_day
-- When a deleted account goes for good.
SELECT to_char(purge_after AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day FROM users WHERE id = :id::uuid AND status = 'deleted';

-- row: mfa_state
--   has_factor bool, team_mfa bool, any_team bool

-- name: user_mfa :one mfa_state
-- Has the user a second factor; does this team, does any of his teams want one?
SELECT EXISTS (SELECT FROM mfa_factors WHERE user_id = :user::uuid AND verified_at IS NOT NULL) AS has_factor,
       EXISTS (SELECT FROM teams WHERE id = :team::uuid? AND require_mfa) AS team_mfa,
       EXISTS (SELECT FROM users_teams m JOIN teams t ON t.id = m.team_id
                WHERE m.user_id = :user::uuid AND t.deleted_at IS NULL AND t.require_mfa) AS any_team;

-- row: providers
--   slugs text[]

-- name: user_providers :one providers
-- The identity providers that vouch for the user.
SELECT coalesce(array_agg(p.slug ORDER BY p.slug), '{}') AS slugs
  FROM external_identities e JOIN identity_providers p ON p.id = e.idp_id WHERE e.user_id = :user::uuid;

-- row: bootstrapped
--   done bool

-- name: platform_bootstrapped :one bootstrapped
-- Has the platform its first administrator?
SELECT admin_bootstrapped_at IS NOT NULL AS done FROM platform_state;

-- name: user_new_password :exec
-- A new password that the person chose himself.
UPDATE users SET password_hash = :password_hash::text, password_changed_at = now(), must_change_password = false,
       updated_at = now()
 WHERE id = :id::uuid;

-- name: user_new_email :exec
-- A new, confirmed address.
UPDATE users SET email = :email::text, email_verified_at = now(), updated_at = now() WHERE id = :id::uuid AND status = 'active';

-- name: user_default_team :exec
-- The team of new tokens; no row: the user is not in it.
UPDATE users_teams m SET is_default = true FROM teams t
 WHERE m.user_id = :user::uuid AND m.team_id = :team::uuid AND t.id = m.team_id AND t.deleted_at IS NULL;

-- name: user_no_default_team :exec
-- Before another one becomes the default.
UPDATE users_teams SET is_default = false WHERE user_id = :user::uuid AND is_default;

-- name: tokens_forget :exec
-- Unused tokens of a purpose: a new one replaces them, or they lost their point.
DELETE FROM one_time_tokens WHERE user_id = :user::uuid AND purpose = :purpose::text AND used_at IS NULL;

-- name: sessions_end_others :exec
-- Ends all logins of a user but one.
UPDATE login_sessions SET revoked_at = now(), revoke_reason = :reason::text
 WHERE user_id = :user::uuid AND revoked_at IS NULL AND id IS DISTINCT FROM :keep::uuid?;

-- name: session_end_own :exec
-- Ends one live login of the user himself.
UPDATE login_sessions SET revoked_at = now(), revoke_reason = 'user'
 WHERE id = :id::uuid AND user_id = :user::uuid AND revoked_at IS NULL AND expires_at > now();

-- name: session_prove :exec
-- The user proved again who he is.
UPDATE login_sessions SET auth_at = now(), mfa_at = CASE WHEN :mfa::bool THEN now() ELSE mfa_at END WHERE id = :id::uuid;

-- name: session_team :exec
-- The team that refreshed tokens of this login are for.
UPDATE login_sessions SET team_id = :team::uuid, last_seen_at = now() WHERE id = :id::uuid;

-- row: login
--   id uuid, kind text, method text, idp text?, current bool, mfa bool, ip text?, user_agent text?, created_at timestamptz,
--   last_seen_at timestamptz, expires_at timestamptz

-- name: login_list :many login
-- The live logins of a user, newest first.
SELECT s.id, s.kind, s.method, p.slug AS idp, s.id = :session::uuid AS current, s.mfa_at IS NOT NULL AS mfa, host(s.ip) AS ip,
       s.user_agent, s.created_at, s.last_seen_at, least(s.expires_at, s.idle_expires_at) AS expires_at
  FROM login_sessions s LEFT JOIN identity_providers p ON p.id = s.idp_id
 WHERE s.user_id = :user::uuid AND s.revoked_at IS NULL AND s.expires_at > now() AND s.idle_expires_at > now()
 ORDER BY s.created_at DESC, s.id DESC LIMIT 200;

-- row: factor
--   id uuid, type text, name text, verified bool, secret_enc bytea?, last_step int8, created_at timestamptz, last_used_at timestamptz?

-- name: factor_list :many factor
-- The verified factors of a user; an unverified one is none.
SELECT id, type, name, true AS verified, secret_enc, coalesce(last_step, 0) AS last_step, created_at, last_used_at
  FROM mfa_factors WHERE user_id = :user::uuid AND verified_at IS NOT NULL ORDER BY created_at, id;

-- name: factor_lock :one factor
-- A factor of the user, locked; unverified ones live for ten minutes.
SELECT id, type, name, verified_at IS NOT NULL AS verified, secret_enc, coalesce(last_step, 0) AS last_step, created_at, last_used_at
  FROM mfa_factors WHERE id = :id::uuid AND user_id = :user::uuid
   AND (verified_at IS NOT NULL OR created_at > now() - interval '10 minutes') FOR UPDATE;

-- row: factors_held
--   n int8

-- name: factor_count :one factors_held
-- Factors of a user, those that wait for their first code too.
SELECT count(*) AS n FROM mfa_factors WHERE user_id = :user::uuid;

-- name: factor_insert :exec
-- A factor that waits for its first code.
INSERT INTO mfa_factors (id, user_id, type, name, secret_enc) VALUES (:id::uuid, :user::uuid, :type::text, :name::text, :secret::bytea);

-- name: factor_forget_unverified :exec
-- Factors whose first code never came.
DELETE FROM mfa_factors WHERE user_id = :user::uuid AND verified_at IS NULL AND created_at <= now() - interval '10 minutes';

-- name: factor_step :exec
-- A code was used; of two at once only one finds the step lower.
UPDATE mfa_factors SET last_step = :step::int8, last_used_at = now(), verified_at = coalesce(verified_at, now())
 WHERE id = :id::uuid AND coalesce(last_step, 0) < :step::int8;

-- name: factor_delete :exec
-- Removes a factor of the user.
DELETE FROM mfa_factors WHERE id = :id::uuid AND user_id = :user::uuid;

-- name: factors_sweep :exec
-- Factors of all users whose first code never came.
DELETE FROM mfa_factors WHERE verified_at IS NULL AND created_at < now() - interval '1 hour';

-- row: backups_left
--   n int8

-- name: backup_left :one backups_left
-- Backup codes that were not used.
SELECT count(*) AS n FROM mfa_backup_codes WHERE user_id = :user::uuid AND used_at IS NULL;

-- name: backup_insert :exec
-- A backup code; only its hash is stored.
INSERT INTO mfa_backup_codes (user_id, idx, code_hash) VALUES (:user::uuid, :idx::int4, :code_hash::text);

-- name: backup_delete :exec
-- All backup codes of a user.
DELETE FROM mfa_backup_codes WHERE user_id = :user::uuid;

-- row: backup
--   code_hash text

-- name: backup_get :one backup
-- The backup code with this index.
SELECT code_hash FROM mfa_backup_codes WHERE user_id = :user::uuid AND idx = :idx::int4 AND used_at IS NULL;

-- name: backup_use :exec
-- Takes a backup code: the first caller gets it.
UPDATE mfa_backup_codes SET used_at = now() WHERE user_id = :user::uuid AND idx = :idx::int4 AND used_at IS NULL;

-- row: challenge
--   user_id uuid, payload jsonb, attempts int4

-- name: challenge_take :one challenge
-- A try at a sign-in's second factor is counted; none is left after five.
UPDATE one_time_tokens SET attempts = attempts + 1
 WHERE token_hash = :hash::bytea AND purpose = 'mfa_challenge' AND used_at IS NULL AND expires_at > now() AND attempts < 5
RETURNING user_id, payload, attempts::int4 AS attempts;

-- name: challenges_dead :one number
-- Sign-ins of the last hour that came to their fifth wrong code.
SELECT count(*) AS n FROM one_time_tokens
 WHERE user_id = :user::uuid AND purpose = 'mfa_challenge' AND attempts >= 5 AND used_at IS NULL AND created_at > now() - interval '1 hour';

-- row: invited
--   yes bool

-- name: signup_invited :one invited
-- Is there a live invitation for the address, or for whoever has this token?
SELECT EXISTS (SELECT FROM team_invitations WHERE (email = :email::text OR (email IS NULL AND token_hash = :hash::bytea))
       AND use_count < max_uses AND revoked_at IS NULL AND declined_at IS NULL AND expires_at > now()) AS yes;
