#!/usr/bin/env python3
"""cli_sign_in.py - `e2b auth login` of the published client, and a person in a real browser, against a running instance.

A program named xdg-open takes the address that the client opens.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
from urllib.parse import quote

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../http")]
from browser import Browser  # noqa: E402
from crew import PASSWORD, URL, Person, check, end  # noqa: E402
from people_house import totp  # noqa: E402

PUBLIC = os.environ["E2B_DOCS_BASE"]
E2B = os.path.join(os.environ["HUTCH_BUILD"], "compat/node_modules/.bin/e2b")
QUESTION = "Allow the command line on this computer to act as you?"


class Client:
    """The command line client with a home of its own."""

    def __init__(self):
        self.home = tempfile.TemporaryDirectory(prefix="hutch-cli-")
        self.opened = self.home.name + "/opened"
        with open(self.home.name + "/xdg-open", "w") as f:
            f.write('#!/bin/sh\nprintf %%s "$1" >"%s.new" && mv "%s.new" "%s"\n' % ((self.opened,) * 3))
        os.chmod(f.name, 0o755)
        self.env = {k: v for k, v in os.environ.items() if k not in ("E2B_API_KEY", "E2B_DOMAIN")}
        self.env.update(HOME=self.home.name, PATH=self.home.name + ":" + os.environ["PATH"], NO_COLOR="1", CI="1",
                        E2B_API_URL=URL, E2B_SANDBOX_URL=URL)

    def __call__(self, *words):
        r = subprocess.run([E2B, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        return re.sub(r"\x1b\[[0-9;]*m", "", r.stdout)

    def login(self):
        """The process, and the address it opens."""
        if os.path.exists(self.opened):
            os.unlink(self.opened)
        p = subprocess.Popen([E2B, "auth", "login"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(1200):
            if os.path.exists(self.opened):
                return p, open(self.opened).read()
            time.sleep(0.05)
        p.kill()
        raise AssertionError("nothing was opened: " + p.communicate()[0])


def said(p):
    return re.sub(r"\x1b\[[0-9;]*m", "", p.communicate(timeout=120)[0])


def sign_in(page, email, password=PASSWORD):
    page.fill("E-mail", email)
    page.fill("Password", password)
    page.click("button", "Sign in")


def test_refused(page, client, ada):
    """Wrong passwords, then Cancel."""
    p, url = client.login()
    check("the client opens our page", url.startswith(PUBLIC + "/api/cli?next=http%3A%2F%2Flocalhost%3A") and "cliVersion=" in url, url)
    page.go(url)
    page.wait("wants to act as you. Sign in first")
    check("every control has a name", page.controls() and all(name for _, name, _ in page.controls() if _ != "alert"), page.controls())
    sign_in(page, ada.email, "not the right one")
    text = page.wait("Try again.")
    check("wrong password: why, and what next", "The address or the password is wrong. Try again." in text, text)
    check("it is an alert, and the address is still there", any(r == "alert" for r, _, _ in page.controls())
          and page.eval("document.querySelector('[name=email]').value") == ada.email)
    sign_in(page, ada.email)
    text = page.wait(QUESTION)
    check("whose account, which program, where it listens", ada.email in text and "version 2." in text and re.search(r"localhost:\d+", text), text)
    check("nothing secret is stored", page.eval("JSON.stringify([{...localStorage}, {...sessionStorage}])") == "[{},{}]"
          and page.eval("document.cookie") == "")
    page.click("button", "Cancel")
    page.wait("not signed in")
    out = said(p)
    check("Cancel: the client says so and has no login", "cancelled in the browser" in out and "Not logged in" in client("auth", "info"), out)


def test_allowed(page, client, ada):
    """The browser knows the person from before; the client gets its login and uses it."""
    p, url = client.login()
    page.go(url)
    text = page.wait(QUESTION)
    check("a browser that is signed in is asked at once", "Password" not in text, text)
    page.click("button", "Allow")
    page.wait("The command line is signed in")
    out = said(p)
    check("Allow: the client is logged in", "Logged in as " + ada.email in out, out)
    check("no token in any address of ours", not any("oken=" in a for a in page.addresses if a.startswith(PUBLIC)), page.addresses)
    out = client("auth", "info")
    check("auth info", "You are logged in as " + ada.email in out, out)
    out = client("sandbox", "list", "--format", "json")
    check("sandbox list with the stored login", out.strip() == "[]", out)
    check("an ordinary login of kind cli", [x["kind"] for x in ada("GET", "/v1/me/logins").json].count("cli") == 1)
    with open(client.home.name + "/.e2b/config.json") as f:
        key = re.search(r'"projectApiKey": *"([^"]+)"', f.read()).group(1)
    out = client("auth", "logout")
    check("auth logout", "Logged out" in out, out)
    check("… revokes it", [x["kind"] for x in ada("GET", "/v1/me/logins").json].count("cli") == 0)
    client.env["E2B_API_KEY"] = key
    out = client("sandbox", "list", "--format", "json")
    del client.env["E2B_API_KEY"]
    check("… and its key", "401" in out or "nauthorized" in out or "not good" in out, out)


def test_second_factor(page, client, eve):
    """Another account, with an authenticator; first a wrong code."""
    made = eve("POST", "/v1/me/mfa", {"type": "totp"}).json
    done = eve("POST", "/v1/me/mfa/%s/verify" % made["id"], {"code": totp(made["secret"])})
    assert done.status == 200, done
    p, url = client.login()
    page.go(url)
    page.wait(QUESTION)
    page.click("button", "Use another account")
    page.wait("Sign in first")
    sign_in(page, eve.email)
    page.wait("Second factor")
    page.fill("Code", "000000")
    page.press("Enter", 13)
    text = page.wait("The code is wrong")
    page.click("button", "Use a backup code")
    page.wait("Backup code")
    page.fill("Backup code", done.json["backup_codes"][0])
    page.press("Enter", 13)
    text = page.wait(QUESTION)
    check("second factor: a wrong code, then a backup code", eve.email in text, text)
    page.click("button", "Allow")
    page.wait("The command line is signed in")
    check("… and the client is the other person", "Logged in as " + eve.email in said(p))
    client("auth", "logout")


def test_evil(page):
    """Other places than this computer get nothing, not even a form."""
    for next_ in ("https://localhost:1/", "http://evil.example/", "http://localhost.evil.example/", "http://localhost@evil.example/",
                  "javascript:alert(1)", "//evil.example", "", "http://localhost:1/#x"):
        page.go(PUBLIC + "/api/cli?next=" + quote(next_, safe=""))
        text = page.wait("Nothing to allow")
        check("next=%s: refused, nothing can be allowed" % next_, "do not follow links of others" in text and "alert" in [c[0] for c in page.controls()]
              and not any(r == "button" for r, _, _ in page.controls()) and page.url().startswith(PUBLIC), (text, page.url()))
    page.go(PUBLIC + "/api/cli?state=error&error=" + quote("<b>call 555 now</b>"))
    check("words of a link are not shown", "555" not in page.wait("not signed in"))
    page.go(URL + "/docs/api/cli?state=success")
    page.wait("The command line is signed in")
    check("/docs/api/cli leads to it", page.url() == URL + "/app/api/cli?state=success", page.url())


def test_away(page, ada):
    """The API refuses, or does not answer."""
    page.go(PUBLIC + "/api/cli?next=" + quote("http://localhost:0/", safe=""))
    page.wait(QUESTION)
    page.click("button", "Allow")
    text = page.wait("Try again.")
    check("what the API refuses is said", "next" in text and QUESTION in text, text)
    page.call("Network.enable")
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.click("button", "Allow")
    text = page.wait("did not answer")
    check("without an answer the page stays and says what next", "Look whether this installation runs" in text and QUESTION in text, text)
    page.call("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    assert ada("DELETE", "/v1/me/logins").status == 204
    page.click("button", "Allow")
    text = page.wait("credential")
    check("a login that has ended", "Try again" in text, text)
    page.click("button", "Use another account")
    page.wait("Sign in first")


def test_look(page):
    """Both themes, a narrow window; nothing wider than the window."""
    page.go(PUBLIC + "/api/cli?next=" + quote("http://localhost:4711", safe=""))
    page.wait("Sign in first")
    colours = []
    for dark in (False, True):
        page.dark(dark)
        colours.append(page.eval("getComputedStyle(document.body).backgroundColor"))
    check("light and dark", len(set(colours)) == 2, colours)
    page.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=False)
    check("320 px wide without scrolling", page.eval("document.documentElement.scrollWidth") <= 320)
    focus = []
    for _ in range(3):
        page.press("Tab", 9)
        focus.append(page.eval("document.activeElement.name || document.activeElement.textContent"))
    check("by keyboard", focus == ["password", "Sign in", "email"] or focus[:2] == ["password", "Sign in"], focus)


def main():
    subprocess.run([os.path.join(HERE, "../compat/install"), os.environ["HUTCH_BUILD"] + "/compat"], check=True)
    browser, client = Browser(), Client()
    try:
        page, ada, eve = browser.page(), Person("ada"), Person("eve")
        test_refused(page, client, ada)
        test_allowed(page, client, ada)
        test_second_factor(page, client, eve)
        test_evil(page)
        test_away(page, eve)
        test_look(page)
        check("the browser has no complaint", not page.complaints, page.complaints)
    finally:
        browser.close()
    end()


if __name__ == "__main__":
    main()
