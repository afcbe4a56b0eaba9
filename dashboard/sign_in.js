// sign_in.js - who is it? The login of the cookie, or else a form: password, then the second factor.
import { enter, resume } from "./api.js";
import { el, errorBox, run, show } from "./page.js";

// A form whose fields are sent by send(values) until that succeeds. more: further buttons.
function form(title, lead, fields, label, send, steps, ...more) {
	const box = errorBox();
	const f = el("form", { onsubmit: event => {
		event.preventDefault();
		run(f, box, () => send(Object.fromEntries(new FormData(f))), steps);
	} }, ...fields, box, el("div", { class: "actions" }, el("button", { class: "main" }, label), ...more));

	show(title, el("p", { class: "muted" }, lead), f);
}

const field = (text, attrs) => el("label", {}, text, el("input", { required: true, ...attrs }));

function second(token, methods, type) {
	return new Promise((done, begin_again) => {
		const backup = type === "backup", other = backup ? "totp" : "backup";
		const change = el("button", { type: "button", class: "quiet",
			onclick: () => second(token, methods, other).then(done, begin_again) },
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
		}, undefined, ...methods.includes(other) ? [change] : []);
	});
}

function first(lead, email) {
	return new Promise(done => {
		form("Sign in", lead, [
			field("E-mail", { name: "email", type: "email", autocomplete: "username", value: email }),
			field("Password", { name: "password", type: "password", autocomplete: "current-password" }),
		], "Sign in", async values => {
			try {
				done(await enter("/v1/auth/login", values));
			} catch (e) {
				if (e.code !== "mfa_required")
					throw e;
				done({ mfa: e.more, email: values.email });
			}
		});
	});
}

// The form, until it is good. Whoever waits gets the API's authResponse.
export async function ask(lead) {
	let email = "", why = lead;

	for (;;) {
		const got = await first(why, email);

		if (!got.mfa)
			return got;
		try {
			return await second(got.mfa.mfa_token, got.mfa.methods, got.mfa.methods[0]);
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
