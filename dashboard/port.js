// port.js - /app/port?capsule=&port=&to=: the gateway sends browsers here that have nothing to show
// at a private port. Who may reach it gets a ticket and goes back with it.
import { call, leave, switchTeam, whose } from "./api.js";
import { el, errorBox, run, show } from "./page.js";
import { signedIn } from "./sign_in.js";

const TRIPS = 3, TRIPS_MS = 20000;
const query = new URLSearchParams(location.search);
const capsule = query.get("capsule") ?? "", port = Number(query.get("port")), to = query.get("to") ?? "/";

const wellFormed = () => /^cl-[0-9a-z]{25}$/.test(capsule) && Number.isInteger(port) && port > 0 && port < 65536 && /^\/(?![/\\])/.test(to);

// A browser that keeps no cookie of the port would be sent here and back for ever. Times only are stored.
function roundInCircles() {
	const name = `hutch-port-${capsule}-${port}`, now = Date.now();
	const trips = (sessionStorage.getItem(name) ?? "").split(" ").map(Number).filter(t => t && now - t < TRIPS_MS);

	if (trips.length >= TRIPS) {
		sessionStorage.removeItem(name);
		return true;
	}
	sessionStorage.setItem(name, [...trips, now].join(" "));
	return false;
}

const ticket = () => call("POST", "/v1/auth/tickets", { capsule, purpose: "port", port });

// The capsule may be another of one's teams'.
async function ticketOfAnyTeam() {
	const home = whose().team_id;
	let missing;

	try {
		return await ticket();
	} catch (e) {
		if (e.code !== "not_found")
			throw e;
		missing = e;
	}
	for (const team of (await call("GET", "/v1/me")).teams)
		if (team.id !== home) {
			await switchTeam(team.id);
			try {
				return await ticket();
			} catch (e) {
				if (e.code !== "not_found" && e.code !== "forbidden")
					throw e;
			}
		}
	if (home)
		await switchTeam(home);
	throw missing;
}

function refuse(title, text) {
	const box = errorBox();

	show(title, box);
	box.append(text);
}

async function main() {
	if (!wellFormed()) {
		refuse("No such port", "This address names no port of a capsule. Open the port's own address instead.");
		return;
	}
	await signedIn(`Port ${port} of ${capsule} is private. Sign in with an account that may reach it.`);
	show(`Opening port ${port}`, el("p", { class: "muted" }, capsule));
	if (roundInCircles()) {
		refuse("The port asks again and again", "This browser does not keep the port's cookie. Allow cookies for its address, then open it anew.");
		return;
	}
	const { ticket: one, url } = await ticketOfAnyTeam();
	location.replace(`${url}.hutch/auth?${new URLSearchParams({ ticket: one, to })}`);
}

async function start() {
	const again = () => location.reload();
	const box = errorBox(), view = el("div", {}, box, el("div", { class: "actions" },
		el("button", { class: "main", onclick: again }, "Try again"),
		el("button", { onclick: () => run(view, box, () => leave().then(again)) }, "Use another account")));

	await run(view, box, main, "Ask its owner, or sign in with another account.");
	if (box.textContent)
		show("The port stays closed", view);
}

start();
