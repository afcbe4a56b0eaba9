// interpreter.mjs - @e2b/code-interpreter against the template code-interpreter-v1, when the installation has it.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Sandbox } from '@e2b/code-interpreter'

const { version } = JSON.parse(readFileSync(new URL('node_modules/@e2b/code-interpreter/package.json', import.meta.url)))
const name = `code-interpreter ${version}`
let box
let failed = 0

async function check(what, fn) {
	try {
		await fn()
		console.log(`ok ${name}: ${what}`)
	} catch (e) {
		console.log(`not ok ${name}: ${what}: ${String(e?.stack ?? e).split('\n').slice(0, 4).join(' | ').slice(0, 600)}`)
		failed++
	}
}

try {
	box = await Sandbox.create({ timeoutMs: 300_000 })
} catch (e) {
	if (!/404/.test(String(e))) throw e
	console.log(`skip ${name}: there is no template code-interpreter-v1`)
	process.exit(0)
}
// An emulated machine that booted just now needs its time until the server of the template listens.
await check('its server answers', async () => {
	const end = Date.now() + 150_000
	for (;;) {
		try {
			return await box.runCode('1')
		} catch (e) {
			if (!/port_closed/.test(String(e)) || Date.now() > end) throw e
			await new Promise((done) => setTimeout(done, 1000))
		}
	}
})
await check('the value of the last expression', async () => {
	const r = await box.runCode('x = 6\nx * 7')
	assert.equal(r.error, undefined)
	assert.equal(r.text, '42')
})
await check('variables live on, output comes as it is written', async () => {
	const seen = []
	const r = await box.runCode('print(x)\nimport sys\nprint("err", file=sys.stderr)', { onStdout: (m) => { seen.push(m.line) } })
	assert.deepEqual([r.logs.stdout.join(''), r.logs.stderr.join('')], ['6\n', 'err\n'])
	assert.equal(seen.join(''), '6\n')
})
await check('an exception', async () => {
	const r = await box.runCode('1 / 0')
	assert.equal(r.error.name, 'ZeroDivisionError')
})
await check('a context of its own', async () => {
	const context = await box.createCodeContext({ cwd: '/tmp' })
	const r = await box.runCode('import os\nos.getcwd(), "x" in globals()', { context })
	assert.equal(r.text, "('/tmp', False)")
})
await check('kill', async () => assert.equal(await box.kill(), true))
process.exit(failed ? 1 : 0)
