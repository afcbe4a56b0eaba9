// api.js - calls of the API, and this browser's login.
//
// The access token lives in memory only; the refresh token is a cookie that no script sees. Nothing
// is kept in the browser's storage.

let login = null; // the API's authResponse, or nobody is signed in

export class ApiError extends Error {
	constructor(status, error, retryAfter) {
		super(error.message);
		this.status = status;
		this.code = error.code;
		this.requestId = error.request_id;
		this.retryAfter = retryAfter;
		this.more = error;
	}
}

async function send(method, path, body, headers = {}) {
	const ask = { method, headers, cache: "no-store", redirect: "error" };
	let answer, json = null;

	if (body !== undefined) {
		ask.headers = { "Content-Type": "application/json", ...headers };
		ask.body = JSON.stringify(body);
	}
	try {
		answer = await fetch(path, ask);
		const text = await answer.text();
		json = text ? JSON.parse(text) : null;
	} catch {
		answer ??= { ok: false, status: 0, headers: new Headers() };
		if (answer.ok || !answer.status)
			throw new ApiError(answer.status, { code: "unreachable", message: "the server did not answer" });
	}
	if (answer.ok)
		return json;
	throw new ApiError(answer.status, json?.error ?? { code: "unexpected", message: `the server answered ${answer.status}` },
		Number(answer.headers.get("Retry-After")) || 0);
}

export const methods = () => send("GET", "/v1/auth/methods");

const bearer = () => login ? { Authorization: `Bearer ${login.token}` } : {};

export const whose = () => login;

async function renew() {
	const { csrf_token } = await send("GET", "/v1/auth/csrf");

	login = await send("POST", "/v1/auth/refresh", {}, { "X-CSRF-Token": csrf_token });
	return login;
}

// The login that the cookie stands for, or null. One tab at a time: the token changes with each use.
export async function resume() {
	try {
		return await (navigator.locks ? navigator.locks.request("hutch-refresh", renew) : renew());
	} catch (e) {
		login = null;
		if (e.status === 401 || e.code === "csrf_failed")
			return null;
		throw e;
	}
}

// What signs in: login, mfa, exchange. Their answer is the login from now on.
export async function enter(path, body) {
	login = await send("POST", path, body);
	return login;
}

export async function leave() {
	const ended = send("POST", "/v1/auth/logout", {}, bearer());

	login = null;
	await ended;
}

// A call as the person who is signed in; an access token that has ended is renewed, once.
export async function call(method, path, body) {
	try {
		return await send(method, path, body, bearer());
	} catch (e) {
		if (e.status !== 401 || !await resume())
			throw e;
		return await send(method, path, body, bearer());
	}
}

export async function switchTeam(team) {
	login = await call("POST", "/v1/auth/switch-team", { team_id: team });
}
