// cli.js - /app/api/cli?next=&cliVersion=: a person allows a command line program on his computer to
// act as him, and the browser carries a login of its own to it.
import { ApiError, call, leave } from "./api.js";
import { el, errorBox, facts, run, show } from "./page.js";
import { ask, signedIn } from "./sign_in.js";

const LEAD = "A command line program on your computer wants to act as you. Sign in first.";
const query = new URLSearchParams(location.search);

// Where the program listens: this computer over plain HTTP, nothing else. The API looks again.
function loopback(text) {
	const url = URL.canParse(text ?? "") ? new URL(text) : null;
	const good = url && url.protocol === "http:" && ["localhost", "127.0.0.1"].includes(url.hostname) &&
		!url.username && !url.password && !url.hash;

	return good ? url : null;
}

function program() {
	const version = query.get("cliVersion") ?? "";

	return /^[0-9A-Za-z.+-]{1,32}$/.test(version) ? `Command line client, version ${version}` : "Command line client";
}

async function allow(next) {
	const { location: where } = await call("POST", "/v1/auth/cli/grant", { next: next.href });

	if (!loopback(where))
		throw new ApiError(0, { code: "unexpected", message: "the server named another place than the one you allowed" });
	location.replace(where);
}

function cancel(next) {
	next.searchParams.set("error", "the sign-in was cancelled in the browser");
	location.replace(next.href);
}

async function somebodyElse(next) {
	await leave();
	confirm(next, await ask(LEAD));
}

function confirm(next, login) {
	const box = errorBox();
	const view = el("div", {},
		facts([
			["Account", login.name ? `${login.email} (${login.name})` : login.email],
			["Program", program()],
			["Listens at", el("code", {}, next.host)],
		]),
		el("p", {}, "It gets a login of its own and a key for each of your teams. You can end it at any time: ",
			el("code", {}, "e2b auth logout"), ", or among your logins."),
		el("p", {}, "Allow it only if you started a sign-in in your terminal just now."),
		box,
		el("div", { class: "actions" },
			el("button", { class: "main", onclick: () => run(view, box, () => allow(next)) }, "Allow"),
			el("button", { onclick: () => cancel(next) }, "Cancel"),
			el("button", { class: "quiet", onclick: () => run(view, box, () => somebodyElse(next)) }, "Use another account")));

	show("Allow the command line on this computer to act as you?", view);
}

// The program sends the browser back here. Its words are not shown: anybody can write them into a link.
function outcome(good) {
	show(good ? "The command line is signed in" : "The command line is not signed in",
		el("p", {}, good ? "Go back to your terminal; this page can be closed." :
			"Your terminal says why. To try again, start the sign-in there anew."));
}

async function main() {
	const state = query.get("state"), next = loopback(query.get("next"));

	if (state === "success" || state === "error") {
		outcome(state === "success");
	} else if (!next) {
		const box = errorBox();

		show("Nothing to allow", box);
		box.append("This address does not say where on this computer a program waits for a sign-in: \"next\" must begin with " +
			"http://localhost or http://127.0.0.1. Start again with e2b auth login; do not follow links of others to this page.");
	} else {
		confirm(next, await signedIn(LEAD));
	}
}

async function start() {
	const box = errorBox(), view = el("div", {}, box, el("div", { class: "actions" },
		el("button", { class: "main", onclick: () => location.reload() }, "Try again")));

	await run(view, box, main);
	if (box.textContent)
		show("Command line sign-in", view);
}

start();
