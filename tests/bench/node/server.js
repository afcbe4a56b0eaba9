// server.js - GET /v1/capsules/:id as one would write it in fastify and pg, with an API key or with a JWT (HS256):
// one prepared query that asks who may and what is there, as the original's two travel together.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import Fastify from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ host: process.env.PGHOST, database: 'hutch', user: 'hutch_super', max: 8 })
const app = Fastify({ logger: false })
const secret = Buffer.from(process.env.JWT_KEY, 'hex')

function uuid (wire) {
  let n = 0n
  for (const c of wire.slice(wire.indexOf('-') + 1)) n = n * 36n + BigInt(parseInt(c, 36))
  const h = n.toString(16).padStart(32, '0')
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`
}

function wire (prefix, id) {
  return id && prefix + BigInt('0x' + id.replaceAll('-', '')).toString(36).padStart(25, '0')
}

function verify (token) {
  const [head, body, mac] = token.split('.')
  const good = createHmac('sha256', secret).update(`${head}.${body}`).digest()
  const given = Buffer.from(mac ?? '', 'base64url')
  if (given.length !== good.length || !timingSafeEqual(given, good)) return null
  if (JSON.parse(Buffer.from(head, 'base64url')).alg !== 'HS256') return null
  const claims = JSON.parse(Buffer.from(body, 'base64url'))
  return claims.exp > Date.now() / 1000 && claims.aud === 'hutch-api' ? claims : null
}

const columns = `SELECT c.id, c.observed_state AS state, c.template_name AS template, c.vcpus, c.memory_mb, c.created_at,
    c.started_at, c.last_active_at, c.updated_at AS last_updated, c.metadata, v.kernel_version, c.desired_state, c.generation,
    c.name, c.team_id, c.owner_id, u.name AS owner_name, c.template_id, c.template_version, c.disk_size_mb, c.tags, c.env_names,
    c.error, c.start_mode, c.accel, m.role, who.status AS who_status, who.email, t.deleted_at`
const rest = `JOIN teams t ON t.id = m.team_id
    JOIN capsules c ON c.team_id = m.team_id AND c.id = $1
    LEFT JOIN users u ON u.id = c.owner_id
    LEFT JOIN template_versions v ON v.template_id = c.template_id AND v.version = c.template_version`
const byKey = {
  name: 'by-key',
  text: `${columns} FROM api_keys k JOIN users who ON who.id = k.created_by
    JOIN users_teams m ON m.team_id = k.team_id AND m.user_id = k.created_by ${rest}
    WHERE k.key_hash = $2 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())`
}
const byToken = {
  name: 'by-token',
  text: `${columns} FROM login_sessions s JOIN users who ON who.id = s.user_id
    JOIN users_teams m ON m.team_id = $4 AND m.user_id = who.id ${rest}
    WHERE s.id = $2 AND s.user_id = $3 AND s.revoked_at IS NULL AND s.expires_at > now()`
}

function query (headers, id) {
  const key = headers['x-api-key']
  if (key) {
    return { ...byKey, values: [id, createHash('sha256').update(key.slice(key.indexOf('_') + 1).toLowerCase()).digest()] }
  }
  const claims = verify((headers.authorization ?? '').replace(/^Bearer /, ''))
  return claims && { ...byToken, values: [id, uuid(claims.sid), uuid(claims.sub), uuid(claims.team_id)] }
}

app.get('/v1/capsules/:id', async (request, reply) => {
  const asked = query(request.headers, uuid(request.params.id))
  if (!asked) return reply.code(401).send({ error: { code: 'unauthorized' } })
  const { rows } = await pool.query(asked)
  const row = rows[0]
  if (!row || row.who_status !== 'active' || row.deleted_at) return reply.code(404).send({ error: { code: 'not_found' } })
  const { role: _r, who_status: _s, email: _e, deleted_at: _d, owner_id: ownerId, owner_name: ownerName, ...out } = row
  return {
    ...out,
    id: wire('cl-', row.id),
    team_id: wire('team-', row.team_id),
    template_id: wire('tpl-', row.template_id),
    owner: ownerId && { id: wire('usr-', ownerId), name: ownerName }
  }
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
