#!/usr/bin/env python3
"""oauth.py - sign-in at other providers, against a real one (npm oidc-provider) and a small GitHub.

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB, HUTCH_RUN, HUTCH_BUILD, HUTCH_CONF; node and npm.
"""
import base64
import http.cookiejar
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
from backends import free_port  # noqa: E402

URL, DB, RUN = os.environ["HUTCH_URL"], os.environ["HUTCH_TEST_DB"], os.environ["HUTCH_RUN"]
HERE = os.path.dirname(os.path.abspath(__file__))
MARK = f"{int(time.time() * 1000):x}"
SECRET = "a secret: with % and +"
counts = {"ok": 0, "not ok": 0}


def check(name, good, why=""):
    counts["ok" if good else "not ok"] += 1
    print(f"ok {name}" if good else f"not ok {name}: {why}", flush=True)


def sql(statement):
    return subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, DB], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


class Browser:
    """Keeps cookies, follows nothing by itself."""

    def __init__(self):
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(Stay, urllib.request.HTTPCookieProcessor(self.jar),
                                                  urllib.request.HTTPSHandler(context=TLS))

    def call(self, method, url, body=None, form=None, **headers):
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if form is not None:
            data = urllib.parse.urlencode(form).encode()
        names = {k.replace("_", "-"): v for k, v in headers.items()}
        try:
            with self.opener.open(urllib.request.Request(url, data, names, method=method), timeout=150) as a:
                return a.status, a.headers, a.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def there(self, url, name):
        """Signs in as NAME at the provider; the address of our callback that it sends the browser to."""
        for _ in range(12):
            if url.startswith(URL):
                return url
            status, headers, page = self.call("GET", url)
            if status == 200:
                prompt = {"prompt": "login", "login": name, "password": "x"} if b'name="login"' in page else {"prompt": "consent"}
                status, headers, page = self.call("POST", url, form=prompt)
            url = urllib.parse.urljoin(url, headers["Location"])
        raise SystemExit(f"the provider goes round in circles at {url}")

    def out(self, idp, **query):
        status, headers, page = self.call("GET", f"{URL}/auth/oauth/{idp}?{urllib.parse.urlencode(query)}")
        assert status == 302, (status, page)
        return headers["Location"]

    def sign_in(self, idp, name, **query):
        """The address of the page that the browser ends at."""
        back = self.there(self.out(idp, **query), name)
        status, headers, page = self.call("GET", back)
        assert status == 302, (status, page)
        return headers["Location"]

    def exchange(self, page):
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(page).fragment).get("code", [""])[0]
        status, _, body = self.call("POST", f"{URL}/v1/auth/exchange", {"code": code})
        return status, json.loads(body)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def key(kid):
    """A fresh RSA key as a private JWK, by openssl."""
    pem = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True).stdout
    text = subprocess.run(["openssl", "rsa", "-noout", "-text"], input=pem, check=True, capture_output=True).stdout.decode()
    parts, name = {}, None
    for line in text.splitlines():
        if line.startswith(" "):
            parts[name] = parts.get(name, "") + line.strip().replace(":", "")
        else:
            name = line.split(":")[0]
    names = {"modulus": "n", "privateExponent": "d", "prime1": "p", "prime2": "q", "exponent1": "dp", "exponent2": "dq",
             "coefficient": "qi"}
    jwk = {"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "e": "AQAB"}
    for long, short in names.items():
        raw = bytes.fromhex(parts[long]).lstrip(b"\0")
        jwk[short] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return jwk


class Provider:
    """node provider.js, with keys of its own each time it starts."""

    def __init__(self, home):
        self.home, self.port, self.process = home, free_port(), None

    def start(self, kid):
        with open(f"{self.home}/jwks.json", "w") as f:
            json.dump({"keys": [key(kid)]}, f)
        self.process = subprocess.Popen(["node", "provider.js", str(self.port), self.home, f"{URL}/auth/oauth/corp{MARK}/callback"],
                                        cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdout.readline()

    def stop(self):
        self.process.terminate()
        self.process.wait()


class GitHub(http.server.BaseHTTPRequestHandler):
    """The three calls that sign-in makes there. A code is the JSON of the answer to come."""

    def log_message(self, *args):
        pass

    def answer(self, what, status=200):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = form.get("client_secret") == ["gh-secret"] and form.get("code_verifier")
        self.answer({"access_token": form["code"][0], "token_type": "bearer"} if good else {"error": "bad_verification_code"})

    def do_GET(self):
        who = json.loads(base64.urlsafe_b64decode(self.headers["Authorization"].split()[1]))
        self.answer(who["emails"] if self.path.endswith("/emails") else {"id": who["id"], "login": who["login"], "name": None})


def github_code(number, *emails):
    return base64.urlsafe_b64encode(json.dumps({"id": number, "login": f"gh{number}", "emails": [
        {"email": e, "primary": p, "verified": v} for e, p, v in emails]}).encode()).decode()


home = tempfile.mkdtemp(prefix="hutch-oidc-")
subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=provider", "-addext",
                "subjectAltName=IP:127.0.0.1", "-keyout", f"{home}/key.pem", "-out", f"{home}/cert.pem"], check=True, capture_output=True)
with open(f"{home}/tls.pem", "w") as out:
    for part in ("key", "cert"):
        with open(f"{home}/{part}.pem") as f:
            out.write(f.read())
shutil.copy(f"{home}/cert.pem", f"{RUN}/oauth-ca.pem")
os.chmod(f"{RUN}/oauth-ca.pem", 0o644)
TLS = ssl.create_default_context(cafile=f"{home}/cert.pem")
for name in ("package.json", "package-lock.json", "provider.js"):
    shutil.copy(f"{HERE}/oidc/{name}", home)
subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=home, check=True)

provider = Provider(home)
provider.start("k1")
hub_port = free_port()
hub = http.server.ThreadingHTTPServer(("127.0.0.1", hub_port), GitHub)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{home}/tls.pem")
hub.socket = context.wrap_socket(hub.socket, server_side=True)
threading.Thread(target=hub.serve_forever, daemon=True).start()


def tests():
    corp, hubname = f"corp{MARK}", f"hub{MARK}"
    boss = Browser()
    with open(f"{home}/password", "w") as f:
        f.write("an administrator's long one")
    subprocess.run([f"{os.environ['HUTCH_BUILD']}/cli/hutchctl", "-c", os.environ["HUTCH_CONF"], "admin", "create", "--email",
                    f"boss-{MARK}@test.example", "--name", "Boss", "--password-file", f"{home}/password"], check=True, stdout=subprocess.DEVNULL)
    _, _, body = boss.call("POST", f"{URL}/v1/auth/login", {"email": f"boss-{MARK}@test.example", "password": "an administrator's long one"})
    admin = bearer(json.loads(body)["token"])

    # administration
    row = {"slug": corp, "type": "oidc", "name": "Corp", "secret": SECRET, "domains": ["corp.example"],
           "config": {"issuer": f"https://127.0.0.1:{provider.port}", "client_id": "hutch"}}
    status, _, body = boss.call("POST", f"{URL}/v1/admin/idps", row, **admin)
    idp = json.loads(body)
    check("a provider is added", status == 201 and idp["has_secret"] and idp["domains"] == ["corp.example"], body)
    check("… and its secret is in no answer", SECRET.encode() not in body and b"secret" not in body.replace(b"has_secret", b""), body)
    check("… nor in the table", "with % and" not in sql("SELECT identity_providers::text FROM identity_providers"))
    check("… twice is a conflict", boss.call("POST", f"{URL}/v1/admin/idps", row, **admin)[0] == 409)
    for what, wrong in (("http", {"issuer": "http://127.0.0.1", "client_id": "x"}), ("HS256", dict(row["config"], alg="HS256")),
                        ("none", dict(row["config"], alg="none")), ("no client", {"issuer": "https://x.example"})):
        status, _, body = boss.call("POST", f"{URL}/v1/admin/idps", dict(row, slug=f"x{MARK}", config=wrong), **admin)
        check(f"a config with {what} is refused", status == 400, body)
    status, _, body = boss.call("POST", f"{URL}/v1/admin/idps/{idp['id']}/test", **admin)
    check("it can be tried", status == 200 and json.loads(body)["ok"], body)
    status, _, body = boss.call("POST", f"{URL}/v1/admin/idps", {
        "slug": hubname, "type": "github", "name": "Hub", "secret": "gh-secret", "domains": ["hub.example"], "config": {
            "client_id": "gh", "web_url": f"https://127.0.0.1:{hub_port}", "api_url": f"https://127.0.0.1:{hub_port}"}}, **admin)
    hub_idp = json.loads(body)
    check("GitHub is added", status == 201, body)
    check("nobody else sees providers' settings", Browser().call("GET", f"{URL}/v1/admin/idps")[0] == 401)

    # sign-up and sign-in
    ada = Browser()
    page = ada.sign_in(corp, f"ada{MARK}", intent="signup", return_to="/somewhere?x=1")
    split = urllib.parse.urlsplit(page)
    check("sign-up returns to our page with a code in the fragment", split.path == f"/auth/{corp}/callback" and not split.query
          and urllib.parse.parse_qs(split.fragment)["return_to"] == ["/somewhere?x=1"], page)
    status, _ = Browser().exchange(page)
    check("another browser cannot use the code", status == 400)
    status, me = ada.exchange(page)
    check("this one gets a session", status == 200 and me["email"] == f"ada{MARK}@corp.example" and me["team_id"], me)
    check("the code is good once", ada.exchange(page)[0] == 400)
    check("the account is active, verified, without a password",
          sql(f"SELECT status, email_verified_at IS NOT NULL, password_hash IS NULL, source FROM users WHERE email = 'ada{MARK}@corp.example'") == "active|t|t|oauth")
    status, again = ada.exchange(ada.sign_in(corp, f"ada{MARK}"))
    check("the next sign-in is the same account", status == 200 and again["user_id"] == me["user_id"], again)
    _, _, body = ada.call("GET", f"{URL}/v1/me", **bearer(again["token"]))
    check("the account shows its provider", corp in json.loads(body)["providers"], body)
    page = Browser().sign_in(corp, f"unverified{MARK}", intent="signup")
    check("an address that is not vouched for makes nothing", page.endswith("?error=email_unverified"), page)

    # state
    bob = Browser()
    back = bob.there(bob.out(corp, intent="signup"), f"bob{MARK}")
    _, headers, _ = Browser().call("GET", back)
    check("a state of another browser is refused", headers["Location"].endswith("?error=invalid_state"), headers["Location"])
    _, headers, _ = bob.call("GET", back)
    check("… and is used up by that", headers["Location"].endswith("?error=invalid_state"), headers["Location"])
    for what, query in (("forged", "state=AAAA&code=x"), ("missing", "code=x")):
        _, headers, _ = bob.call("GET", f"{URL}/auth/oauth/{corp}/callback?{query}")
        check(f"a {what} state is refused", headers["Location"].endswith("?error=invalid_state"), headers["Location"])
    back = bob.there(bob.out(corp, intent="signup"), f"bob{MARK}")
    _, headers, _ = bob.call("GET", back.replace(f"corp{MARK}/callback", f"hub{MARK}/callback"))
    check("a state of another provider is refused", headers["Location"].endswith("?error=invalid_state"), headers["Location"])
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(bob.out(corp)).query)["state"][0]
    _, headers, _ = bob.call("GET", f"{URL}/auth/oauth/{corp}/callback?state={state}&error=access_denied")
    check("a refusal there is told", headers["Location"].endswith("?error=access_denied"), headers["Location"])
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(bob.out(corp)).query)["state"][0]
    _, headers, _ = bob.call("GET", f"{URL}/auth/oauth/{corp}/callback?state={state}&code=nonsense")
    check("a code that the provider does not know is told", headers["Location"].endswith("?error=exchange_failed"), headers["Location"])
    for to in ("//evil.example", "https://evil.example", "/\\evil.example", "evil"):
        status, _, _ = bob.call("GET", f"{URL}/auth/oauth/{corp}?return_to={urllib.parse.quote(to)}")
        check(f"return_to={to} is refused", status == 400)
    status, _, body = bob.call("GET", f"{URL}/auth/oauth/nobody")
    check("an unknown provider is 404", status == 404 and json.loads(body)["error"]["code"] == "provider_not_found", body)
    check("the way out has PKCE, state and nonce", all(w in bob.out(corp) for w in ("code_challenge_method=S256", "state=", "nonce=")))
    check("the same under /v1", bob.call("GET", f"{URL}/v1/auth/oauth/{corp}")[0] == 302)

    # addresses that are known
    def account(name, status):
        sql(f"""INSERT INTO users (id, source, email, name, status, password_hash, webauthn_handle) VALUES
            (gen_random_uuid(), 'signup', '{name}@hub.example', 'X', '{status}', 'h1:x', decode(repeat(md5(random()::text), 4), 'hex'))""")

    def by_hub(browser, code, **query):
        state = urllib.parse.parse_qs(urllib.parse.urlsplit(browser.out(hubname, **query)).query)["state"][0]
        return browser.call("GET", f"{URL}/auth/oauth/{hubname}/callback?" + urllib.parse.urlencode({"state": state, "code": code}))[1]["Location"]

    account(f"taken{MARK}", "active")
    account(f"waiting{MARK}", "inactive")
    number = int(MARK, 16) % 10**9
    page = by_hub(Browser(), github_code(number, (f"taken{MARK}@hub.example", True, True)), intent="signup")
    check("an active address is not taken over", page.endswith("?error=email_taken"), page)
    page = by_hub(Browser(), github_code(number + 1, (f"waiting{MARK}@hub.example", True, False)), intent="signup")
    check("… nor an inactive one by somebody unverified", page.endswith("?error=email_unverified")
          or page.endswith("?error=no_account"), page)
    old = sql(f"SELECT id FROM users WHERE email = 'waiting{MARK}@hub.example'")
    gina = Browser()
    status, me = gina.exchange(by_hub(gina, github_code(number + 1, (f"Waiting{MARK}@hub.example", True, True)), intent="signup"))
    new = sql(f"SELECT id, status, password_hash IS NULL FROM users WHERE email = 'waiting{MARK}@hub.example'").split("|")
    check("a verified one replaces a sign-up that nobody confirmed; its password is gone",
          status == 200 and new[0] != old and new[1:] == ["active", "t"], (me, new))
    page = by_hub(Browser(), github_code(number + 5, (f"jit{MARK}@hub.example", True, True)))
    check("an address of its domains may come in without sign-up", "#code=" in page, page)
    page = by_hub(Browser(), github_code(number + 6, (f"jit{MARK}@other.example", True, True)))
    check("… others not", page.endswith("?error=no_account"), page)
    boss.call("PATCH", f"{URL}/v1/admin/idps/{hub_idp['id']}", {"link_by_email": True}, **admin)
    page = by_hub(Browser(), github_code(number, (f"taken{MARK}@hub.example", True, True)))
    check("with link_by_email an account of its domains is linked", "#code=" in page, page)
    sql(f"UPDATE users SET status = 'disabled' WHERE email = 'taken{MARK}@hub.example'")
    page = by_hub(Browser(), github_code(number, (f"taken{MARK}@hub.example", True, True)))
    check("a disabled account is told so", page.endswith("?error=account_deactivated"), page)

    # link and unlink
    token = me["token"]
    status, _, body = gina.call("DELETE", f"{URL}/v1/me/providers/{hubname}", **bearer(token))
    check("the only way in is not unlinked", status == 400 and json.loads(body)["error"]["code"] == "last_login_method", body)
    status, _, body = gina.call("GET", f"{URL}/v1/me/providers/{corp}/connect", **bearer(token))
    page = gina.there(json.loads(body)["auth_url"], f"gina{MARK}")
    _, headers, _ = gina.call("GET", page)
    check("another provider is linked", headers["Location"].endswith(f"?connected={corp}"), headers["Location"])
    status, _, body = ada.call("GET", f"{URL}/v1/me/providers/{corp}/connect", **bearer(again["token"]))
    other = Browser()
    other.jar = ada.jar
    page = Browser.there(other, json.loads(body)["auth_url"], f"ada{MARK}")
    status, headers, _ = ada.call("GET", page)
    check("linking one's own again is no error", "connected=" in headers["Location"], headers["Location"])
    status, _, body = gina.call("DELETE", f"{URL}/v1/me/providers/{hubname}", **bearer(token))
    check("then the first can be unlinked", status == 204, body)
    check("… once", gina.call("DELETE", f"{URL}/v1/me/providers/{hubname}", **bearer(token))[0] == 404)
    rows = sql(f"SELECT string_agg(action, ',' ORDER BY seq) FROM audit_logs WHERE resource_type = 'identity' AND metadata::text LIKE '%{MARK}%'")
    check("linking and unlinking are in the audit log", rows == "link,unlink", rows)

    # new keys at the provider: asked for again when a token has an unknown one, but once a minute at most
    provider.stop()
    provider.start("k2")
    end = time.monotonic() + 180
    status = 0
    while status != 200 and time.monotonic() < end:
        page = ada.sign_in(corp, f"ada{MARK}")
        status = ada.exchange(page)[0] if "#code=" in page else time.sleep(3)
    check("new keys are found within a minute", status == 200, page)

    # removal
    status, _, body = boss.call("DELETE", f"{URL}/v1/admin/idps/{idp['id']}", **admin)
    check("a provider that is somebody's only way in is not removed", status == 409 and json.loads(body)["error"]["code"] == "in_use", body)
    check("… but by force", boss.call("DELETE", f"{URL}/v1/admin/idps/{idp['id']}?force=true", **admin)[0] == 204)
    check("no token is in the web server's log", not any(w in open(f"{RUN}/log/lighttpd-access.log").read() for w in (token, again["token"])))


try:
    tests()
finally:
    provider.stop()
    hub.shutdown()
    shutil.rmtree(home)
print(f"{counts['ok']} passed, {counts['not ok']} failed, 0 skipped")
sys.exit(1 if counts["not ok"] else 0)
