// sign_in.js - who is it? The login of the cookie, or else a form: password, then the second factor.
import { enter, methods, resume } from "./api.js";
import { el, errorBox, run, show } from "./page.js";

const RETURN_MAX = 512; // the API takes no longer return_to

// A form whose fields are sent by send(values) until that succeeds. more: further buttons.
function form(title, lead, fields, label, send, steps, ...more) {
	const box = errorBox();
	const f = el("form", { onsubmit: event => {
		event.preventDefault();
		run(f, box, () => send(Object.fromEntries(new FormData(f))), steps);
	} }, ...fields, box, el("div", { class: "actions" }, el("button", { class: "main" }, label), ...more));

	show(title, el("p", { class: "muted" }, lead), f);
	return f;
}

const field = (text, attrs) => el("label", {}, text, el("input", { required: true, ...attrs }));

// Buttons of other providers, when there are some; they come back to this very address.
async function providers(f) {
	const here = location.pathname + location.search;
	const back = here.length <= RETURN_MAX ? `?${new URLSearchParams({ return_to: here })}` : "";

	for (const p of (await methods()).providers)
		f.append(el("p", {}, el("a", { class: "button", href: p.login_url + back }, `Sign in with ${p.name}`)));
}

function second(token, kinds, type) {
	return new Promise((done, begin_again) => {
		const backup = type === "backup", other = backup ? "totp" : "backup";
		const change = el("button", { type: "button", class: "quiet",
			onclick: () => second(token, kinds, other).then(done, begin_again) },
		backup ? "Use the app" : "Use a backup code");

		form("Second factor", backup ? "One of the codes that you kept when you set the factor up." :
			"The six digits that your authenticator app shows now.",
		[field(backup ? "Backup code" : "Code", { name: "code", autocomplete: "one-time-code", spellcheck: "false",
			inputmode: backup ? "text" : "numeric", maxlength: backup ? 64 : 6 })],
		"Continue", async ({ code }) => {
			try {
				done(await enter("/v1/auth/mfa", { mfa_token: token, type, code }));
			} catch (e) {
				if (e.code !== "invalid_token")
					throw e;
				begin_again(e);
			}
		}, undefined, ...kinds.includes(other) ? [change] : []);
	});
}

function first(lead, email) {
	return new Promise(done => {
		const f = form("Sign in", lead, [
			field("E-mail", { name: "email", type: "email", autocomplete: "username", value: email }),
			field("Password", { name: "password", type: "password", autocomplete: "current-password" }),
		], "Sign in", async values => {
			try {
				done(await enter("/v1/auth/login", values));
			} catch (e) {
				if (e.code !== "mfa_required")
					throw e;
				done({ mfa: e, email: values.email });
			}
		});
		providers(f).catch(() => {}); // without them the password still works
	});
}

// After the answer mfa_required.
export const secondFactor = e => second(e.more.mfa_token, e.more.methods, e.more.methods[0]);

// The form, until it is good. Whoever waits gets the API's authResponse.
export async function ask(lead) {
	let email = "", why = lead;

	for (;;) {
		const got = await first(why, email);

		if (!got.mfa)
			return got;
		try {
			return await secondFactor(got.mfa);
		} catch (e) {
			email = got.email;
			why = `${lead} The sign-in took too long or had too many wrong codes: begin again.`;
		}
	}
}

// lead: what the sign-in is for.
export async function signedIn(lead) {
	return await resume() ?? await ask(lead);
}
