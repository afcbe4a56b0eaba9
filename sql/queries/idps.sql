-- idps.sql - identity providers, who is known by them, and sign-ins under way (spec 01 §2.3).

-- row: idp
--   id uuid, slug text, type text, name text, enabled bool, managed_by text, config jsonb, secret_enc bytea?, domains text[],
--   link_by_email bool, jit bool, trust_mfa bool, default_team_id uuid?, created_at timestamptz

-- name: idp_list :many idp
-- All providers, by slug.
SELECT id, slug, type, name, enabled, managed_by, config, secret_enc, domains, link_by_email, jit, trust_mfa, default_team_id,
       created_at
  FROM identity_providers WHERE type IN ('github', 'oidc') ORDER BY slug LIMIT 200;

-- name: idp_by_slug :one idp
-- A provider that people may use.
SELECT id, slug, type, name, enabled, managed_by, config, secret_enc, domains, link_by_email, jit, trust_mfa, default_team_id,
       created_at
  FROM identity_providers WHERE slug = :slug::text AND enabled AND type IN ('github', 'oidc');

-- name: idp_get :one idp
-- A provider, for its administrator.
SELECT id, slug, type, name, enabled, managed_by, config, secret_enc, domains, link_by_email, jit, trust_mfa, default_team_id,
       created_at
  FROM identity_providers WHERE id = :id::uuid FOR UPDATE;

-- name: idp_insert :exec
-- A new provider.
INSERT INTO identity_providers (id, slug, type, name, enabled, managed_by, config, secret_enc, domains, link_by_email, jit, trust_mfa,
       default_team_id, created_by)
VALUES (:id::uuid, :slug::text, :type::text, :name::text, :enabled::bool, :managed_by::text, :config::jsonb, :secret::bytea?,
       :domains::text[], :link_by_email::bool, :jit::bool, :trust_mfa::bool, :default_team::uuid?, :user::uuid?);

-- name: idp_update :exec
-- All that may change of a provider.
UPDATE identity_providers SET name = :name::text, enabled = :enabled::bool, config = :config::jsonb, secret_enc = :secret::bytea?,
       domains = :domains::text[], link_by_email = :link_by_email::bool, jit = :jit::bool, trust_mfa = :trust_mfa::bool,
       default_team_id = :default_team::uuid?, updated_at = now()
 WHERE id = :id::uuid;

-- name: idp_delete :exec
-- A provider with all it knows of people.
DELETE FROM identity_providers WHERE id = :id::uuid;

-- row: stranded
--   users int8, last_admin bool

-- name: idp_only_way :one stranded
-- How many people have no other way in than this provider; and whether no administrator would be left who can sign in.
SELECT count(*) AS users,
       coalesce(bool_or(u.platform_role = 'admin' AND u.status = 'active'), false)
       AND NOT EXISTS (SELECT FROM users a WHERE a.platform_role = 'admin' AND a.status = 'active'
                          AND (a.password_hash IS NOT NULL
                               OR EXISTS (SELECT FROM external_identities o WHERE o.user_id = a.id AND o.idp_id <> :id::uuid)))
       AS last_admin
  FROM external_identities e JOIN users u ON u.id = e.user_id
 WHERE e.idp_id = :id::uuid AND u.password_hash IS NULL AND u.status <> 'deleted'
   AND NOT EXISTS (SELECT FROM external_identities o WHERE o.user_id = u.id AND o.idp_id <> :id::uuid);

-- name: idp_configure :exec
-- The provider of hutch.conf: made, changed, or left as it is.
INSERT INTO identity_providers AS p (id, slug, type, name, managed_by, config, secret_enc, jit)
VALUES (:id::uuid, :slug::text, :type::text, :name::text, 'config', :config::jsonb, :secret::bytea?, true)
    ON CONFLICT (slug) DO UPDATE SET type = excluded.type, name = excluded.name, config = excluded.config,
       secret_enc = excluded.secret_enc, managed_by = 'config', enabled = true, updated_at = now();

-- row: idp_id
--   id uuid

-- name: idp_of_slug :one idp_id
-- The id of the provider with this slug.
SELECT id FROM identity_providers WHERE slug = :slug::text;

-- name: idp_unconfigure :exec
-- Providers that hutch.conf names no longer let nobody in; who they knew stays known.
UPDATE identity_providers SET enabled = false, updated_at = now()
 WHERE managed_by = 'config' AND enabled AND slug <> ALL (:slugs::text[]);

-- row: identity
--   user_id uuid, status text

-- name: identity_find :one identity
-- Whose account a provider's subject is.
SELECT e.user_id, u.status FROM external_identities e JOIN users u ON u.id = e.user_id
 WHERE e.idp_id = :idp::uuid AND e.subject = :subject::text FOR SHARE OF u;

-- name: identity_insert :exec
-- Links a subject to an account.
INSERT INTO external_identities (idp_id, subject, user_id, email, last_login_at)
VALUES (:idp::uuid, :subject::text, :user::uuid, :email::text?, now()) ON CONFLICT DO NOTHING;

-- name: identity_used :exec
-- A sign-in with it.
UPDATE external_identities SET last_login_at = now(), email = coalesce(:email::text?, email)
 WHERE idp_id = :idp::uuid AND subject = :subject::text;

-- name: identity_delete :exec
-- Unlinks a provider from an account.
DELETE FROM external_identities WHERE user_id = :user::uuid
   AND idp_id = (SELECT id FROM identity_providers WHERE slug = :slug::text);

-- row: ways_in
--   password bool, identities int8, this bool

-- name: user_ways_in :one ways_in
-- How an account can be signed in to, and whether by this provider; the account is locked.
SELECT u.password_hash IS NOT NULL AS password,
       (SELECT count(*) FROM external_identities e WHERE e.user_id = u.id) AS identities,
       EXISTS (SELECT FROM external_identities e JOIN identity_providers p ON p.id = e.idp_id
                WHERE e.user_id = u.id AND p.slug = :slug::text) AS this
  FROM users u WHERE u.id = :user::uuid FOR UPDATE;

-- name: state_insert :exec
-- A sign-in that went to a provider; or the code that the browser comes back with.
INSERT INTO one_time_tokens (token_hash, id, user_id, purpose, payload, secret_enc, ip, expires_at)
VALUES (:hash::bytea, :id::uuid, :user::uuid?, :purpose::text, :payload::jsonb, :secret::bytea?, :ip::text?::inet,
       now() + make_interval(secs => :ttl::int8));

-- row: login_state
--   id uuid, user_id uuid?, payload jsonb, secret_enc bytea?

-- name: state_take :one login_state
-- It came back: once.
UPDATE one_time_tokens SET used_at = now()
 WHERE token_hash = :hash::bytea AND purpose = :purpose::text AND used_at IS NULL AND expires_at > now()
RETURNING id, user_id, payload, secret_enc;

-- row: login_alive
--   alive bool

-- name: login_is_alive :one login_alive
-- Whether a login may still link accounts.
SELECT (s.revoked_at IS NULL AND s.expires_at > now() AND u.status = 'active') AS alive
  FROM login_sessions s JOIN users u ON u.id = s.user_id WHERE s.id = :id::uuid AND s.user_id = :user::uuid;
