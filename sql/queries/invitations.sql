-- invitations.sql - invitations into teams (spec 01 §2.5).

-- row: invitation
--   id uuid, team_id uuid, team_name text, email text?, role text, max_uses int4, use_count int4, invited_by uuid?,
--   inviter text?, created_at timestamptz, expires_at timestamptz, state text

-- name: invitation_list :many invitation
-- Invitations of a team, newest first.
SELECT i.id, i.team_id, t.name AS team_name, i.email, i.role, i.max_uses, i.use_count, i.invited_by, u.name AS inviter,
       i.created_at, i.expires_at,
       CASE WHEN i.revoked_at IS NOT NULL THEN 'revoked' WHEN i.declined_at IS NOT NULL THEN 'declined'
         WHEN i.use_count >= i.max_uses THEN 'accepted' WHEN i.expires_at <= now() THEN 'expired' ELSE 'pending' END AS state
  FROM team_invitations i JOIN teams t ON t.id = i.team_id LEFT JOIN users u ON u.id = i.invited_by
 WHERE i.team_id = :team::uuid
   AND (i.created_at, i.id) < (coalesce(:before::timestamptz?, 'infinity'),
       coalesce(:before_id::uuid?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY i.created_at DESC, i.id DESC LIMIT :limit::int4;

-- name: invitation_of :many invitation
-- Open invitations to an address, newest first.
SELECT i.id, i.team_id, t.name AS team_name, i.email, i.role, i.max_uses, i.use_count, i.invited_by, u.name AS inviter,
       i.created_at, i.expires_at, 'pending' AS state
  FROM team_invitations i JOIN teams t ON t.id = i.team_id LEFT JOIN users u ON u.id = i.invited_by
 WHERE i.email = :email::text AND i.revoked_at IS NULL AND i.declined_at IS NULL AND i.use_count < i.max_uses
   AND i.expires_at > now() AND t.deleted_at IS NULL ORDER BY i.created_at DESC, i.id DESC LIMIT 200;

-- name: invitation_get :one invitation
-- One that a team made, whatever its state.
SELECT i.id, i.team_id, t.name AS team_name, i.email, i.role, i.max_uses, i.use_count, i.invited_by, u.name AS inviter,
       i.created_at, i.expires_at,
       CASE WHEN i.revoked_at IS NOT NULL THEN 'revoked' WHEN i.declined_at IS NOT NULL THEN 'declined'
         WHEN i.use_count >= i.max_uses THEN 'accepted' WHEN i.expires_at <= now() THEN 'expired' ELSE 'pending' END AS state
  FROM team_invitations i JOIN teams t ON t.id = i.team_id LEFT JOIN users u ON u.id = i.invited_by
 WHERE i.id = :id::uuid AND i.team_id = :team::uuid;

-- name: invitation_find :one invitation
-- The open invitation of a token, or of an id to an address.
SELECT i.id, i.team_id, t.name AS team_name, i.email, i.role, i.max_uses, i.use_count, i.invited_by, u.name AS inviter,
       i.created_at, i.expires_at, 'pending' AS state
  FROM team_invitations i JOIN teams t ON t.id = i.team_id LEFT JOIN users u ON u.id = i.invited_by
 WHERE (i.token_hash = :hash::bytea? OR (i.id = :id::uuid? AND i.email = :email::text?))
   AND i.revoked_at IS NULL AND i.declined_at IS NULL AND i.use_count < i.max_uses AND i.expires_at > now()
   AND t.deleted_at IS NULL;

-- row: invitation_count
--   n int8

-- name: invitation_pending :one invitation_count
-- Open invitations of a team.
SELECT count(*) AS n FROM team_invitations i
 WHERE i.team_id = :team::uuid AND i.revoked_at IS NULL AND i.declined_at IS NULL AND i.use_count < i.max_uses AND i.expires_at > now();

-- name: invitation_insert :exec
-- A new invitation; only the hash of its token is stored.
INSERT INTO team_invitations (id, team_id, email, token_hash, role, max_uses, invited_by, expires_at)
VALUES (:id::uuid, :team::uuid, :email::text?, :hash::bytea, :role::text, :max_uses::int4, :by::uuid,
       now() + make_interval(secs => :expires_in::int8));

-- row: invitation_used
--   id uuid, team_id uuid, role text, invited_by uuid?

-- name: invitation_use :one invitation_used
-- Counts a use: nobody gets more than there are.
UPDATE team_invitations SET use_count = use_count + 1, accepted_at = now()
 WHERE id = :id::uuid AND use_count < max_uses AND revoked_at IS NULL AND declined_at IS NULL AND expires_at > now()
RETURNING id, team_id, role, invited_by;

-- name: invitation_revoke :exec
-- Ends an open invitation.
UPDATE team_invitations SET revoked_at = now()
 WHERE id = :id::uuid AND team_id = :team::uuid AND revoked_at IS NULL AND declined_at IS NULL AND use_count < max_uses;

-- name: invitation_decline :exec
-- Turns down an invitation that is bound to an address.
UPDATE team_invitations SET declined_at = now()
 WHERE id = :id::uuid AND email IS NOT NULL AND revoked_at IS NULL AND declined_at IS NULL AND use_count < max_uses AND expires_at > now();

-- name: invitation_team_live :one invitation_used
-- The team, live and not to be deleted before this transaction ends.
SELECT t.id, t.id AS team_id, '' AS role, NULL::uuid AS invited_by FROM teams t WHERE t.id = :team::uuid AND t.deleted_at IS NULL FOR SHARE;

-- row: found_user
--   user_id uuid, email text

-- name: user_search :many found_user
-- Active users whose address begins with the text, letter for letter: everybody, or who shares a team or the domain with the caller.
SELECT u.id AS user_id, u.email FROM users u
 WHERE u.status = 'active' AND u.email ~>=~ :prefix::text AND u.email ~<~ (:prefix::text || chr(127))
   AND (:everybody::bool OR u.email = :prefix::text
     OR (:domain::text? IS NOT NULL AND split_part(u.email, '@', 2) = :domain::text?)
     OR EXISTS (SELECT FROM users_teams a JOIN users_teams b ON b.team_id = a.team_id JOIN teams t ON t.id = a.team_id
                 WHERE a.user_id = :user::uuid AND b.user_id = u.id AND t.deleted_at IS NULL))
 ORDER BY u.email LIMIT 10;
