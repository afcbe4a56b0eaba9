-- idempotency.sql - one key, one effect.

-- row: idempotency_begun
--   locked bool, body_hash bytea?, status int4?, response bytea?

-- name: idempotency_begin :one idempotency_begun
-- Takes the key for this transaction, and tells the answer that it had already.
SELECT l.locked, k.body_hash, k.status::int4 AS status, k.response_enc AS response
  FROM (SELECT pg_try_advisory_xact_lock(hashtextextended(:scope::uuid || ' ' || :route::text || ' ' || :key::text, 7)) AS locked) l
  LEFT JOIN idempotency_keys k ON k.scope_id = :scope::uuid AND k.route = :route::text AND k.key = :key::text
   AND k.expires_at > now();

-- name: idempotency_record :exec
-- Remembers the answer for a day.
INSERT INTO idempotency_keys (scope_id, route, key, body_hash, status, response_enc, expires_at)
VALUES (:scope::uuid, :route::text, :key::text, :body_hash::bytea, :status::int4, :response::bytea, now() + interval '24 hours')
    ON CONFLICT (scope_id, route, key) DO UPDATE SET body_hash = excluded.body_hash, status = excluded.status,
       response_enc = excluded.response_enc, created_at = now(), expires_at = excluded.expires_at;

-- name: idempotency_update :exec
-- The first answer, now complete.
UPDATE idempotency_keys SET status = :status::int4, response_enc = :response::bytea
 WHERE scope_id = :scope::uuid AND route = :route::text AND key = :key::text;

-- name: idempotency_sweep :exec
-- Forgets what has expired.
DELETE FROM idempotency_keys WHERE ctid IN (SELECT ctid FROM idempotency_keys WHERE expires_at <= now() LIMIT 10000);
