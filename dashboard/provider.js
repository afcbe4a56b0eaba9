// provider.js - /auth/{idp}/callback#code=&return_to=: what came back from another provider becomes a
// login, and the page that asked for it opens.
import { enter } from "./api.js";
import { el, errorBox, explain, show } from "./page.js";
import { secondFactor } from "./sign_in.js";

const given = new URLSearchParams(location.hash.slice(1)), wrong = new URLSearchParams(location.search).get("error");

const reasons = {
	access_denied: "The sign-in was refused there.",
	invalid_state: "The sign-in took too long, or began in another browser.",
	no_account: "No account here belongs to this sign-in. Ask for an invitation.",
	signup_closed: "This installation takes no new accounts. Ask its administrator.",
	email_taken: "An account with this address is here already. Sign in to it, then connect the provider.",
	email_unverified: "The provider does not vouch for the address. Confirm it there first.",
	account_deactivated: "The account is disabled. An administrator of this installation can enable it.",
};

async function main() {
	const to = given.get("return_to") ?? "/";

	history.replaceState(null, "", location.pathname); // the code is for nobody else
	if (!given.has("code"))
		throw { message: reasons[wrong] ?? "The sign-in did not succeed." };
	try {
		await enter("/v1/auth/exchange", { code: given.get("code") });
	} catch (e) {
		if (e.code !== "mfa_required")
			throw e;
		await secondFactor(e);
	}
	location.replace(/^\/(?![/\\])/.test(to) ? to : "/");
}

async function start() {
	try {
		await main();
	} catch (e) {
		const box = errorBox(), to = given.get("return_to") ?? "";

		show("You are not signed in", box, ...(/^\/app\//.test(to) ? [el("a", { href: to }, "Back to the sign-in")] : []));
		explain(box, e, "");
	}
}

start();
