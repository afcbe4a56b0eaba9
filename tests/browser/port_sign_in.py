#!/usr/bin/env python3
"""port_sign_in.py - a private port of a capsule, opened in a real browser (spec 02 §2.8): sign-in, back with a ticket, the cookie."""
import os
import sys
import time
from urllib.parse import urlsplit

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../http")]
from browser import Browser  # noqa: E402
from cli_sign_in import PUBLIC, sign_in  # noqa: E402
from crew import URL, Person, check, end  # noqa: E402

DOMAIN = os.environ["HUTCH_DOMAIN"]
UNKNOWN = "cl-0000000000000000000000001"


class House:
    """A capsule of ada's with a page on the loopback of its port 8080."""

    def __init__(self, ada):
        a = ada("POST", "/v1/capsules", {"template": "base", "timeout_sec": 600, "wait": 50})
        assert a.status == 201, a
        self.id = a.json["id"]
        self.base = "/v1/capsules/" + self.id
        for _ in range(900):
            if ada("GET", self.base).json["state"] == "running":
                break
            time.sleep(0.2)
        script = "mkdir -p w/a && echo '<h1>inside the capsule</h1>' >w/a/index.html && cd w && exec python3 -m http.server -b 127.0.0.1 8080"
        a = ada("POST", self.base + "/exec", {"cmd": "sh", "args": ["-c", script], "background": True})
        assert a.status in (200, 201, 202), a
        for _ in range(600):
            if any(p["port"] == 8080 for p in ada("GET", self.base + "/ports").json):
                break
            time.sleep(0.2)

    def address(self, path="/a/?x=1&y=a%20b"):
        return "http://8080-%s.%s%s" % (self.id, DOMAIN, path)


def test_owner(page, h, ada):
    page.go(h.address())
    text = page.wait("Sign in with an account that may reach it")
    check("who is not signed in comes to the dashboard", page.url().startswith(PUBLIC + "/port?") and h.id in text, (page.url(), text))
    sign_in(page, ada.email)
    page.wait("inside the capsule")
    check("signed in: back at the same place", page.url() == h.address(), page.url())
    check("the page in the capsule sees no cookie of ours", page.eval("document.cookie") == "")
    page.addresses.clear()
    page.go(h.address("/a/"))
    page.wait("inside the capsule")
    check("from now on without a detour", page.addresses == [h.address("/a/")], page.addresses)


def test_others(browser, h, ada):
    """A member whose own team is another one; a stranger; a capsule that is none."""
    member, stranger = Person("mel"), Person("sam")
    member.into(ada, "member")
    page = browser.page(h.address())
    page.wait("is private")
    sign_in(page, member.email)
    page.wait("inside the capsule")
    check("a member, signed in for another team", page.url() == h.address(), page.url())
    foreign = browser.page(h.address())
    foreign.wait("is private")
    sign_in(foreign, stranger.email)
    text = foreign.wait("stays closed")
    check("a stranger is told no more than that there is none", "No such capsule" in text and "inside" not in text, text)
    foreign.go(PUBLIC + "/port?capsule=%s&port=8080&to=/" % UNKNOWN)
    check("… the same words for one that does not exist", foreign.wait("stays closed") == text, (text, foreign.text()))
    return page, foreign


def test_addresses(page, h):
    for query in ("capsule=cl-1&port=8080&to=/", "capsule=%s&port=0&to=/" % h.id, "capsule=%s&port=x&to=/" % h.id, "capsule=%s&port=8080&to=//evil.example" % h.id,
                  "capsule=%s&port=8080&to=https://evil.example/" % h.id, "capsule=%s.evil.example&port=8080" % h.id, ""):
        page.go(PUBLIC + "/port?" + query)
        check("/app/port?%s goes nowhere" % query[:70], "names no port" in page.wait("No such port"))


def either(page, *texts):
    """What the page says as soon as one of them is in it, or after a minute."""
    said, end = "", time.monotonic() + 60
    while not any(t in said for t in texts) and time.monotonic() < end:
        try:
            said = page.text()
        except RuntimeError:  # between two documents
            said = ""
        time.sleep(0.05)
    return said


def test_circle(page, h):
    """A browser that comes back again and again keeps no cookies: it is told so."""
    for _ in range(3):
        page.go(PUBLIC + "/port?capsule=%s&port=8080&to=/a/" % h.id)
        if "again and again" in either(page, "inside the capsule", "again and again"):
            break
        time.sleep(0.1)
    check("three times in a row: it does not go on for ever", "does not keep the port's cookie" in page.wait("again and again"))


def main():
    domain, _, port = DOMAIN.partition(":")
    # The names lead to the web server that is tested, whatever port they say.
    web = urlsplit(URL)
    browser, ada = Browser("MAP *.%s:%s %s:%d" % (domain, port or "80", web.hostname, web.port)), Person("ada")
    h = House(ada)
    try:
        page = browser.page()
        test_owner(page, h, ada)
        member, foreign = test_others(browser, h, ada)
        test_addresses(member, h)
        test_circle(page, h)
        complaints = [c for p in (page, member, foreign) for c in p.complaints]
        check("the browser has no complaint", not complaints, complaints)
    finally:
        browser.close()
        ada("DELETE", h.base)
    end()


if __name__ == "__main__":
    main()
