// drive.mjs - plays the checks with one version of the SDK: node drive.mjs PACKAGE [--short] [WORD]. --short leaves out what
// takes long; WORD: only checks with it, besides the first and the last. Prints a line "ok …", "skip …" or "not ok …" for each.
// E2B_DOMAIN without E2B_API_URL: in domain mode, where ports have names of their own and are always asked.
import { readFileSync } from 'node:fs'
import { LONG, checks } from './checks.mjs'

const words = process.argv.slice(2)
const short = words.includes('--short')
const [name, word] = words.filter((w) => w !== '--short')
const sdk = { ...(await import(name)) }
const { version } = JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url)))
const c = { sdk, keep: {} }
const domain = process.env.E2B_DOMAIN && !process.env.E2B_API_URL
let failed = 0

sdk.VERSION_NAMES = Number(version.split('.')[1]) >= 40 // createSnapshot takes a name

for (const [what, fn, needs] of checks) {
	const line = `e2b ${version}${domain ? ' by domain' : ''}: ${what}`
	if (short && LONG.some((l) => what.startsWith(l)) && !(domain && what.startsWith('port:'))) continue
	if (word && c.box && !what.includes(word) && !what.startsWith('kill:')) continue
	if (needs && c.box && !needs(c.box)) {
		console.log(`skip ${line}: this version has no such call`)
		continue
	}
	if (what !== checks[0][0] && !c.box) {
		console.log(`not ok ${line}: there is no capsule`)
		failed++
		continue
	}
	const begin = Date.now()
	try {
		await fn(c)
		console.log(`ok ${line} (${Date.now() - begin} ms)`)
	} catch (e) {
		console.log(`not ok ${line}: ${String(e?.stack ?? e).split('\n').slice(0, 4).join(' | ').slice(0, 600)}`)
		failed++
	}
}
process.exit(failed ? 1 : 0)
