// checks.mjs - what the E2B SDK is asked to do, and what must come of it. Each check gets the SDK's module and the
// capsule they share; it throws when something is wrong. Order matters: the last ones end the capsule.
import assert from 'node:assert/strict'
import http from 'node:http'
import https from 'node:https'

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const text = (bytes) => Buffer.from(bytes).toString()

async function until(what, seconds, fn) {
	const end = Date.now() + seconds * 1000
	for (;;) {
		const got = await fn()
		if (got) return got
		if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`)
		await sleep(200)
	}
}

// A request to a port of a capsule. In header mode the name is not looked up, the web server of the tests gets it as Host.
function port(host, path = '/') {
	const plain = process.env.E2B_API_URL
	const at = new URL(plain ?? `https://${host}`)
	return new Promise((ok, no) => {
		const q = (plain ? http : https).request({ host: at.hostname, port: at.port, path, headers: { Host: host } }, (answer) => {
			let body = ''
			answer.on('data', (part) => (body += part))
			answer.on('end', () => ok({ status: answer.statusCode, body }))
		})
		q.on('error', no)
		q.end()
	})
}

async function all(paginator) {
	const found = []
	while (paginator.hasNext) found.push(...(await paginator.nextItems()))
	return found
}

const RUN = `run-${process.pid}-${Date.now()}`

// [name, function({ sdk, box, keep }), call that the version must have]. keep: what later checks need.
// In a short run what takes long is left out: LONG.
export const LONG = ['command: 1 MiB', 'command: a time limit', 'file: 8 MiB', 'terminal:', 'port:', 'network:', 'snapshot: a capsule']
export const checks = [
	['create: a capsule of the template base', async (c) => {
		c.box = await c.sdk.Sandbox.create('base', {
			timeoutMs: 600_000, metadata: { run: RUN, 'with blank': 'x y&z=1' }, envs: { STAGE: 'test' },
		})
		assert.match(c.box.sandboxId, /^[0-9a-z]{25}$/)
	}],
	['info: template, metadata, times', async ({ box }) => {
		const info = await box.getInfo()
		assert.equal(info.name, 'base')
		assert.equal(info.metadata.run, RUN)
		assert.equal(info.state ?? 'running', 'running')
		assert.ok(info.endAt - Date.now() > 500_000 && info.endAt - Date.now() < 610_000)
	}],
	['isRunning', async ({ box }) => assert.equal(await box.isRunning(), true)],

	['command: output, exit code 0', async ({ box }) => {
		const r = await box.commands.run('echo out; echo err >&2')
		assert.deepEqual([r.stdout, r.stderr, r.exitCode], ['out\n', 'err\n', 0])
	}],
	['command: another exit code is an error', async ({ sdk, box }) => {
		await assert.rejects(box.commands.run('echo no >&2; exit 7'), (e) =>
			e instanceof sdk.CommandExitError && e.exitCode === 7 && e.stderr === 'no\n')
	}],
	['command: variables of the capsule and of the call', async ({ box }) => {
		const r = await box.commands.run('echo $STAGE $ONE $E2B_SANDBOX $E2B_SANDBOX_ID', { envs: { ONE: '1' } })
		assert.equal(r.stdout, `test 1 true ${box.sandboxId}\n`)
	}],
	['command: user, working directory', async ({ box }) => {
		assert.equal((await box.commands.run('id -un; pwd')).stdout, 'user\n/home/user\n')
		assert.equal((await box.commands.run('id -un; pwd', { user: 'root', cwd: '/tmp' })).stdout, 'root\n/tmp\n')
	}],
	['command: a directory that is not there', async ({ sdk, box }) => {
		await assert.rejects(box.commands.run('true', { cwd: '/nowhere' }), (e) =>
			e instanceof sdk.InvalidArgumentError && /cwd '\/nowhere' does not exist/.test(e.message))
	}],
	['command: output as it comes', async ({ box }) => {
		const seen = []
		await box.commands.run('for i in 1 2 3; do echo $i; sleep 0.2; done', { onStdout: (part) => { seen.push(part) } })
		assert.equal(seen.join(''), '1\n2\n3\n')
		assert.ok(seen.length > 1, 'in one piece')
	}],
	['command: 1 MiB of output', async ({ box }) => {
		const r = await box.commands.run('head -c 1048576 /dev/zero | tr "\\0" x')
		assert.equal(r.stdout.length, 1048576)
	}],
	['command: in the background, listed, found again, killed', async ({ box }) => {
		const h = await box.commands.run('sleep 300', { background: true })
		assert.ok((await box.commands.list()).some((p) => p.pid === h.pid))
		const again = await box.commands.connect(h.pid)
		assert.equal(await h.kill(), true)
		await assert.rejects(again.wait())
		assert.equal(await box.commands.kill(h.pid), false)
	}],
	['command: stdin', async ({ box }) => {
		const h = await box.commands.run('head -n 1', { background: true, stdin: true })
		await box.commands.sendStdin(h.pid, 'hello\n')
		assert.equal((await h.wait()).stdout, 'hello\n')
	}],
	['command: a time limit', async ({ sdk, box }) => {
		await assert.rejects(box.commands.run('sleep 30', { timeoutMs: 1000 }), sdk.TimeoutError)
	}],

	['file: text written, read, told', async ({ box }) => {
		const w = await box.files.write('notes/a.txt', 'grüße\n')
		assert.equal(w.path, '/home/user/notes/a.txt')
		assert.equal(await box.files.read('notes/a.txt'), 'grüße\n')
		assert.equal(await box.files.exists('notes/a.txt'), true)
		assert.equal(await box.files.exists('notes/b.txt'), false)
	}],
	['file: bytes, blob, stream', async ({ box }) => {
		const data = new Uint8Array(300_000).map((_, i) => i * 7)
		await box.files.write('data.bin', new Blob([data]))
		assert.deepEqual(Buffer.from(await box.files.read('data.bin', { format: 'bytes' })), Buffer.from(data))
		const parts = []
		for await (const part of await box.files.read('data.bin', { format: 'stream' })) parts.push(part)
		assert.deepEqual(Buffer.concat(parts), Buffer.from(data))
		assert.equal((await box.files.read('data.bin', { format: 'blob' })).size, data.length)
	}],
	['file: several at once', async ({ box }) => {
		const made = await box.files.write([{ path: 'm/1', data: 'one' }, { path: 'm/2', data: 'two' }])
		assert.deepEqual(made.map((f) => f.name), ['1', '2'])
		assert.equal(await box.files.read('m/2'), 'two')
	}],
	['file: 8 MiB there and back', async ({ box }) => {
		const data = Buffer.alloc(8 << 20, 'hutch')
		await box.files.write('/tmp/large', new Blob([data]))
		assert.ok(Buffer.from(await box.files.read('/tmp/large', { format: 'bytes' })).equals(data))
	}],
	['file: an empty one', async ({ box }) => {
		await box.files.write('empty', '')
		assert.equal(await box.files.read('empty'), '')
	}],
	['file: directories, list, rename, remove', async ({ box }) => {
		assert.equal(await box.files.makeDir('dir/sub'), true)
		assert.equal(await box.files.makeDir('dir/sub'), false)
		await box.files.write('dir/sub/x', 'x')
		assert.deepEqual((await box.files.list('dir')).map((f) => [f.name, f.type]), [['sub', 'dir']])
		assert.equal((await box.files.rename('dir/sub/x', 'dir/y')).path, '/home/user/dir/y')
		await box.files.remove('dir/y')
		assert.equal(await box.files.exists('dir/y'), false)
	}],
	['file: its entry', async ({ box }) => {
		const e = await box.files.getInfo('notes/a.txt')
		assert.deepEqual([e.type, e.size, e.owner, e.permissions], ['file', 8, 'user', '-rw-r--r--'])
	}, (b) => b.files.getInfo],
	['file: of root', async ({ box }) => {
		await box.files.write('/root/secret', 's', { user: 'root' })
		assert.equal(await box.files.read('/root/secret', { user: 'root' }), 's')
		await assert.rejects(box.files.read('/root/secret'))
	}],
	['file: one that is not there', async ({ sdk, box }) => {
		await assert.rejects(box.files.read('nothing'), sdk.NotFoundError)
		await assert.rejects(box.files.list('nothing'), sdk.NotFoundError)
	}],
	['file: signed addresses', async ({ box }) => {
		const up = await box.uploadUrl('signed.txt', { useSignatureExpiration: 60_000 })
		const form = new FormData()
		form.append('file', new Blob(['by url']), 'signed.txt')
		assert.equal((await fetch(up, { method: 'POST', body: form })).status, 200)
		const down = await box.downloadUrl('signed.txt')
		assert.equal(await (await fetch(down)).text(), 'by url')
		assert.equal((await fetch(down.replace('signed.txt', 'data.bin'))).status >= 400, true)
	}],
	['file: a watched directory', async ({ box }) => {
		await box.files.makeDir('watched')
		const seen = []
		const w = await box.files.watchDir('watched', (e) => { seen.push(`${e.type} ${e.name}`) }, { timeoutMs: 60_000 })
		await box.files.write('watched/new', '1')
		await box.files.remove('watched/new')
		await until('create and remove', 120, () => seen.includes('remove new') && seen.some((e) => e.endsWith(' new')))
		await w.stop()
	}],

	['terminal: input, size, output, end', async ({ box }) => {
		let out = ''
		const t = await box.pty.create({ cols: 120, rows: 40, onData: (d) => { out += text(d) }, timeoutMs: 60_000 })
		await box.pty.sendInput(t.pid, Buffer.from('echo si""ze $(tput cols)\n'))
		await until('the size', 120, () => out.includes('size 120'))
		await box.pty.resize(t.pid, { cols: 90, rows: 20 })
		await box.pty.sendInput(t.pid, Buffer.from('echo th""en $(tput cols)\n'))
		await until('the new size', 120, () => out.includes('then 90'))
		assert.equal(await box.pty.kill(t.pid), true)
		await until('its end', 120, async () => !(await box.pty.kill(t.pid)))
	}],

	['port: open to everybody, by its host name', async ({ box }) => {
		await box.files.write('www/index.html', 'from inside')
		await box.commands.run('cd www && python3 -m http.server 8000', { background: true, timeoutMs: 0 })
		const got = await until('the port answers', 120, async () => {
			const a = await port(box.getHost(8000), '/index.html')
			return a.status === 200 && a
		})
		assert.equal(got.body, 'from inside')
	}],
	['port: one that nobody listens on', async ({ box }) => {
		const a = await port(box.getHost(8001))
		assert.equal(a.status, 502)
		assert.equal(JSON.parse(a.body).error_code, 'port_closed')
	}],

	['list: by metadata, with blanks', async ({ sdk, box }) => {
		const found = await all(sdk.Sandbox.list({ query: { metadata: { run: RUN, 'with blank': 'x y&z=1' } } }))
		assert.deepEqual(found.map((s) => s.sandboxId), [box.sandboxId])
		assert.equal(found[0].metadata['with blank'], 'x y&z=1')
	}],
	['list: by state', async ({ sdk, box }) => {
		const q = (state) => all(sdk.Sandbox.list({ query: { metadata: { run: RUN }, state: [state] } }))
		assert.deepEqual([(await q('running')).length, (await q('paused')).length], [1, 0])
	}],
	['times: setTimeout', async ({ box }) => {
		await box.setTimeout(1_200_000)
		const left = (await box.getInfo()).endAt - Date.now()
		assert.ok(left > 1_100_000 && left < 1_210_000, `${left}`)
	}],
	['metrics', async ({ box }) => {
		const m = await until('a point', 120, async () => {
			const list = await box.getMetrics()
			const last = list.at(-1)
			return last && (last.memCache === undefined || last.memCache > 0) && list // the guest says it every 10 s
		})
		assert.ok(m[0].cpuCount >= 1 && m[0].memTotal > 1e8 && m[0].diskTotal > 1e9)
	}, (b) => b.getMetrics],
	['network: outward rules replaced', async ({ box }) => {
		await box.updateNetwork({ allowInternetAccess: false, allowOut: ['198.51.100.7'] })
		let info = await box.getInfo()
		assert.equal(info.allowInternetAccess, false)
		assert.deepEqual(info.network.allowOut, ['198.51.100.7'])
		await box.updateNetwork({ denyOut: ['203.0.113.0/24'] })
		info = await box.getInfo()
		assert.deepEqual([info.allowInternetAccess, info.network.allowOut, info.network.denyOut], [true, [], ['203.0.113.0/24']])
	}, (b) => b.updateNetwork],
	['network: what is not supported is refused', async ({ box }) => {
		await assert.rejects(box.updateNetwork({ rules: { 'a.example': [{ transform: { headers: { A: 'b' } } }] } }), /400/)
	}, (b) => b.updateNetwork],

	['pause: true, then false', async (c) => {
		await c.box.files.write('before', 'pause')
		c.keep.counter = await c.box.commands.run('i=0; while :; do echo $((i+=1)) >/tmp/counter; sleep 0.3; done',
			{ background: true, timeoutMs: 0 })
		await until('it counts', 120, () => c.box.files.exists('/tmp/counter'))
		const pause = c.box.pause ? () => c.box.pause() : () => c.box.betaPause()
		assert.notEqual(await pause(), false)
		assert.equal(await pause(), false)
	}, (b) => b.pause ?? b.betaPause],
	['paused: not running, listed as paused', async ({ sdk, box }) => {
		assert.equal(await box.isRunning(), false)
		const found = await all(sdk.Sandbox.list({ query: { metadata: { run: RUN }, state: ['paused'] } }))
		assert.deepEqual(found.map((s) => [s.sandboxId, s.state]), [[box.sandboxId, 'paused']])
	}, (b) => b.pause ?? b.betaPause],
	['connect: wakes it with files and processes', async (c) => {
		c.box = await c.sdk.Sandbox.connect(c.box.sandboxId, { timeoutMs: 900_000 })
		assert.equal(await c.box.files.read('before'), 'pause')
		const one = await c.box.files.read('/tmp/counter')
		await until('the process goes on', 120, async () => (await c.box.files.read('/tmp/counter')) !== one)
		await c.box.commands.kill(c.keep.counter.pid)
	}, (b) => b.pause ?? b.betaPause],

	['fork: a copy with an id of its own', async ({ sdk, box }) => {
		await box.files.write('parent', 'yes')
		const [copy] = await box.fork({ count: 1, timeoutMs: 120_000 })
		if (copy instanceof Error) throw copy
		assert.notEqual(copy.sandboxId, box.sandboxId)
		assert.equal(await copy.files.read('parent'), 'yes')
		await copy.files.write('parent', 'no')
		assert.equal(await box.files.read('parent'), 'yes')
		assert.equal(await sdk.Sandbox.kill(copy.sandboxId), true)
	}, (b) => b.fork],

	['snapshot: taken with a name, listed', async (c) => {
		await c.box.files.write('state', 'one')
		const taken = await c.box.createSnapshot(c.sdk.VERSION_NAMES ? { name: `compat-${process.pid}` } : {})
		c.keep.snapshot = taken.snapshotId
		const listed = await all(c.sdk.Sandbox.listSnapshots({ sandboxId: c.box.sandboxId }))
		assert.ok(listed.some((s) => s.snapshotId === taken.snapshotId))
	}, (b) => b.createSnapshot],
	['snapshot: a capsule made of it', async (c) => {
		await c.box.files.write('state', 'two')
		const made = await c.sdk.Sandbox.create(c.keep.snapshot, { timeoutMs: 120_000 })
		assert.equal(await made.files.read('state'), 'one')
		assert.equal(await c.sdk.Sandbox.kill(made.sandboxId), true)
	}, (b) => b.createSnapshot],
	['snapshot: deleted once', async ({ sdk, keep }) => {
		assert.equal(await sdk.Sandbox.deleteSnapshot(keep.snapshot), true)
		assert.equal(await sdk.Sandbox.deleteSnapshot(keep.snapshot), false)
	}, (b) => b.createSnapshot],

	['error: no such template', async ({ sdk }) => {
		await assert.rejects(sdk.Sandbox.create('no-such-template'), /404/)
	}],
	['error: a bad key', async ({ sdk }) => {
		await assert.rejects(sdk.Sandbox.create('base', { apiKey: `e2b_${'0'.repeat(40)}` }), sdk.AuthenticationError)
	}],
	['error: a time over the limit', async ({ sdk }) => {
		await assert.rejects(sdk.Sandbox.create('base', { timeoutMs: 9e9 }), /400/)
	}],
	['error: capsules of nobody', async ({ sdk }) => {
		const id = '0'.repeat(25)
		await assert.rejects(sdk.Sandbox.getInfo(id), sdk.NotFoundError)
		await assert.rejects(sdk.Sandbox.connect(id), sdk.NotFoundError)
		await assert.rejects(sdk.Sandbox.setTimeout(id, 1000), sdk.NotFoundError)
		assert.equal(await sdk.Sandbox.kill(id), false)
	}],

	['kill: true, then false', async ({ sdk, box }) => {
		assert.equal(await sdk.Sandbox.kill(box.sandboxId), true)
		assert.equal(await sdk.Sandbox.kill(box.sandboxId), false)
	}],
	['killed: not running, no commands', async ({ sdk, box }) => {
		assert.equal(await box.isRunning(), false)
		await assert.rejects(box.commands.run('true'))
		await assert.rejects(sdk.Sandbox.getInfo(box.sandboxId), sdk.NotFoundError)
	}],
]
