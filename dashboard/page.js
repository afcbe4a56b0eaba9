// page.js - what is on the page: elements, one view at a time, errors with their next step.
import { ApiError } from "./api.js";

// el("p", { class: "x" }, "text", child): text is text, never markup.
export function el(tag, attrs = {}, ...children) {
	const e = document.createElement(tag);

	for (const [name, value] of Object.entries(attrs))
		if (name.startsWith("on"))
			e.addEventListener(name.slice(2), value);
		else if (value !== false)
			e.setAttribute(name, value === true ? "" : value);
	e.append(...children);
	return e;
}

// Takes the place of all that was there. The first field gets the focus, else the heading.
export function show(title, ...children) {
	const page = document.getElementById("page"), heading = el("h1", { tabindex: "-1" }, title);

	page.replaceChildren(heading, ...children);
	(page.querySelector("input") ?? heading).focus();
}

export const errorBox = () => el("div", { class: "error", role: "alert" });

export function facts(rows) {
	return el("dl", {}, ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

const nextSteps = {
	account_not_activated: "Open the link in the mail that came with the sign-up, then sign in here.",
	account_disabled: "An administrator of this installation can enable it.",
	sso_required: "Your organisation signs in elsewhere: use its button.",
	invalid_token: "Enter your password again.",
	password_change_required: "Change it with POST /v1/me/password, or ask an administrator, then try again.",
	mfa_enrollment_required: "Add one with POST /v1/me/mfa, then try again.",
	unreachable: "Look whether this installation runs, then try again.",
	csrf_failed: "Open this page by the address that the installation gives as its own.",
};

function sentence(text) {
	return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

// Cause, next step, and what to tell an administrator.
export function explain(box, e, step) {
	const next = e.retryAfter ? `Try again in ${e.retryAfter} s.` : step ?? nextSteps[e.code] ?? "Try again.";

	box.replaceChildren(`${sentence(e.message)} ${next}`.trim());
	if (e.status >= 500 && e.requestId)
		box.append(el("code", {}, `Request ${e.requestId}`));
}

// Runs what a button or form does; meanwhile its buttons rest, afterwards an error stands in the box.
export async function run(view, box, action, step) {
	const buttons = [...view.querySelectorAll("button")];

	box.replaceChildren();
	buttons.forEach(b => b.disabled = true);
	try {
		await action();
	} catch (e) {
		if (!(e instanceof ApiError)) {
			box.append("This page has a fault; the browser's console names it.");
			throw e;
		}
		explain(box, e, step);
	} finally {
		buttons.forEach(b => b.disabled = false);
	}
}
