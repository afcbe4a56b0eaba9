#!/usr/bin/env python3
"""provider_sign_in.py - sign-in at another provider from the command line's page, in a real browser: out, back, second factor, refusal."""
import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlencode, urlsplit

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../http")]
from browser import Browser  # noqa: E402
from cli_sign_in import PUBLIC, QUESTION  # noqa: E402
from crew import URL, Person, call, check, end  # noqa: E402
from people_house import totp  # noqa: E402

SLUG = "web%x" % int(time.time())
NAME = "Hub " + SLUG


class Hub(BaseHTTPRequestHandler):
    """What GitHub is to a sign-in; whoever comes is `person`, or refuses when that is None."""
    person = None

    def log_message(self, *args):
        pass

    def say(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.say({"access_token": form["code"][0], "token_type": "bearer"})

    def do_GET(self):
        ask = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        if not self.path.startswith("/login/oauth/authorize"):
            who = json.loads(base64.urlsafe_b64decode(self.headers["Authorization"].split()[1]))
            mails = [{"email": who["email"], "primary": True, "verified": True}]
            self.say(mails if self.path.endswith("/emails") else {"id": who["id"], "login": "x", "name": None})
            return
        code = base64.urlsafe_b64encode(json.dumps(Hub.person).encode()).decode()
        self.send_response(302)
        self.send_header("Location", "%s?%s" % (ask["redirect_uri"], urlencode(
            {"state": ask["state"], **({"code": code} if Hub.person else {"error": "access_denied"})})))
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve(home):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hub", "-addext",
                    "subjectAltName=IP:127.0.0.1", "-keyout", home + "/key.pem", "-out", home + "/cert.pem"], check=True, capture_output=True)
    ca = os.environ["HUTCH_RUN"] + "/oauth-ca.pem"  # oauth.ca_file of such an instance
    shutil.copy(home + "/cert.pem", ca)
    os.chmod(ca, 0o644)
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home + "/cert.pem", home + "/key.pem")
    hub.socket = context.wrap_socket(hub.socket, server_side=True)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    return "https://127.0.0.1:%d" % hub.server_port


def add_provider(url):
    a = call("POST", "/v1/auth/login", {"email": os.environ["HUTCH_ADMIN_EMAIL"], "password": os.environ["HUTCH_ADMIN_PASSWORD"]})
    admin = {"Authorization": "Bearer " + a.json["token"]}
    a = call("POST", "/v1/admin/idps", {"slug": SLUG, "type": "github", "name": NAME, "secret": "s", "domains": [], "link_by_email": False,
                                        "config": {"client_id": "x", "web_url": url, "api_url": url}}, admin)
    assert a.status == 201, a
    return lambda: call("DELETE", "/v1/admin/idps/" + a.json["id"], None, admin)


def test_in(browser, ada):
    """An account that is connected, then with a second factor."""
    Hub.person = {"id": 1, "email": ada.email}
    page = browser.page(PUBLIC + "/api/cli?next=" + quote("http://localhost:4711/a?b=c", safe=""))
    page.wait("Sign in with " + NAME)
    page.addresses.clear()
    page.click("link", "Sign in with " + NAME)
    text = page.wait(QUESTION)
    check("signed in elsewhere, back at the question", ada.email in text and "localhost:4711" in text, text)
    check("the code is not in the address any more", "#" not in page.url() and page.url().endswith("next=http%3A%2F%2Flocalhost%3A4711%2Fa%3Fb%3Dc"), page.url())
    made = ada("POST", "/v1/me/mfa", {"type": "totp"}).json
    done = ada("POST", "/v1/me/mfa/%s/verify" % made["id"], {"code": totp(made["secret"])})
    assert done.status == 200, done
    page.click("button", "Use another account")
    page.wait("Sign in with " + NAME)
    page.click("link", "Sign in with " + NAME)
    page.wait("Second factor")
    check("its second factor is asked for, and no code is in the address", page.url().endswith("/auth/%s/callback" % SLUG), page.url())
    page.click("button", "Use a backup code")
    page.wait("Backup code")
    page.fill("Backup code", done.json["backup_codes"][0])
    page.press("Enter", 13)
    check("… then the question", ada.email in page.wait(QUESTION))
    return page


def test_refused(browser):
    page = browser.page()
    for person, words in ((None, "refused there"), ({"id": 2, "email": "nobody-%s@x.example" % SLUG}, "Ask for an invitation")):
        Hub.person = person
        page.go(PUBLIC + "/api/cli?next=" + quote("http://localhost:4711", safe=""))
        page.wait("Sign in with " + NAME)
        page.click("link", "Sign in with " + NAME)
        text = page.wait("You are not signed in")
        check("it did not succeed: %s" % words, words in text, text)
    page.go(PUBLIC + "/port")  # else it were the same document
    page.wait("No such port")
    page.go("%s/auth/%s/callback#code=forged&return_to=%s" % (URL, SLUG, quote("//evil.example", safe="")))
    text = page.wait("You are not signed in")
    check("a forged code", ("expired" in text or "unknown" in text) and page.url() == "%s/auth/%s/callback" % (URL, SLUG), (text, page.url()))
    return page


def connect(ada):
    """The provider's sign-in is linked to the account, as its owner asked."""
    Hub.person = {"id": 1, "email": ada.email}
    a = ada("GET", "/v1/me/providers/%s/connect" % SLUG)
    assert a.status == 200, a
    state = a.headers["Set-Cookie"].split(";")[0]
    out = parse_qs(urlsplit(a.json["auth_url"]).query)
    code = base64.urlsafe_b64encode(json.dumps(Hub.person).encode()).decode()
    subprocess.run(["curl", "-sS", "-o", "/dev/null", "-H", "Cookie: " + state,
                    "%s/auth/oauth/%s/callback?%s" % (URL, SLUG, urlencode({"state": out["state"][0], "code": code}))], check=True)
    assert SLUG in ada("GET", "/v1/me").json["providers"], ada("GET", "/v1/me")


def main():
    with tempfile.TemporaryDirectory(prefix="hutch-hub-") as home:
        remove, ada = add_provider(serve(home)), Person("ada")
        connect(ada)
        browser = Browser("", "--ignore-certificate-errors")
        try:
            pages = test_in(browser, ada), test_refused(browser)
            complaints = [c for p in pages for c in p.complaints]
            check("the browser has no complaint", not complaints, complaints)
        finally:
            browser.close()
            remove()
    end()


if __name__ == "__main__":
    main()
