// server.js - GET /v1/capsules/:id as one would write it in fastify and pg: key by its hash, row by id and team.
import { createHash } from 'node:crypto'
import Fastify from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ host: process.env.PGHOST, database: 'hutch', user: 'hutch_super', max: 8 })
const app = Fastify({ logger: false })
const alphabet = 36n

function uuid (wire) {
  let n = 0n
  for (const c of wire.slice(3)) n = n * alphabet + BigInt(parseInt(c, 36))
  const h = n.toString(16).padStart(32, '0')
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`
}

const read = {
  name: 'read',
  text: `SELECT c.*, u.name AS owner_name FROM api_keys k
    JOIN teams t ON t.id = k.team_id AND t.deleted_at IS NULL
    JOIN capsules c ON c.team_id = k.team_id AND c.id = $2
    LEFT JOIN users u ON u.id = c.owner_id
    WHERE k.key_hash = $1 AND k.revoked_at IS NULL`
}

app.get('/v1/capsules/:id', async (request, reply) => {
  const key = request.headers['x-api-key'] ?? ''
  const hash = createHash('sha256').update(key).digest()
  const { rows } = await pool.query({ ...read, values: [hash, uuid(request.params.id)] })
  if (rows.length === 0) return reply.code(404).send({ error: { code: 'not_found' } })
  const { envs_enc: _, ...row } = rows[0]
  return row
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
