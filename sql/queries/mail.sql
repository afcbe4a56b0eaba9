-- mail.sql - mails: recorded in the transaction that causes them, sent by a job (spec 04 §3).

-- row: mail_in
--   wanted bool

-- row: mail
--   id uuid, template text, locale text, vars jsonb, to_hash bytea, to_addr text?, to_name text?, token_id uuid?,
--   token_purpose text?, state text, reason text?, expired bool, token_hash bytea?

-- name: mail_insert :one mail_in
-- Records a mail; false: it is not to be sent.
SELECT email_insert(:id::uuid, :template::text, :vars::text::jsonb, :class::text, :user::uuid?, :to_hash::bytea,
	:to_addr::text, :to_name::text?, :token::uuid?, :purpose::text?, :expires_at::timestamptz?) AS wanted;

-- name: mail_get :one mail
-- A mail, with the hash of its token while that can still be used.
SELECT e.id, e.template, e.locale, e.vars, e.to_hash, e.to_addr, e.to_name, e.token_id, e.token_purpose, e.state, e.reason,
	e.expires_at <= now() AS expired, coalesce(t.token_hash, i.token_hash) AS token_hash
  FROM emails e LEFT JOIN one_time_tokens t ON t.id = e.token_id AND t.used_at IS NULL AND t.expires_at > now()
  LEFT JOIN team_invitations i ON i.id = e.token_id AND i.revoked_at IS NULL AND i.declined_at IS NULL AND i.expires_at > now()
 WHERE e.id = :id::uuid;

-- name: mail_mark :exec
-- What became of a mail; sent_at is set once. What was to stand in it goes; the address of somebody who was erased goes with the last mail.
UPDATE emails SET state = :state::text, reason = :reason::text?, smtp_code = :code::int4?,
	vars = CASE WHEN :state::text <> 'queued' THEN '{}' ELSE vars END,
	to_addr = CASE WHEN template = 'account_purged' AND :state::text <> 'queued' THEN NULL ELSE to_addr END,
	to_name = CASE WHEN template = 'account_purged' AND :state::text <> 'queued' THEN NULL ELSE to_name END,
	sent_at = CASE WHEN :state::text = 'sent' THEN coalesce(sent_at, now()) ELSE sent_at END
 WHERE id = :id::uuid AND state = 'queued';

-- name: mail_suppress :exec
-- The recipient was refused: nothing goes there for 7 days, from the second time on for 180.
INSERT INTO mail_suppressions AS s (to_hash, reason, until) VALUES (:to_hash::bytea, :reason::text, now() + interval '7 days')
ON CONFLICT (to_hash) DO UPDATE SET times = s.times + 1, reason = excluded.reason, until = now() + interval '180 days';
