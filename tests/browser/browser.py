"""browser.py - Debian's Chromium without a window, driven over a pipe by its DevTools protocol. No test by itself.

What a person does is done as a person does it: pointer and keys at the place where a control is, found by the name that a
screen reader says. What the browser itself complains of (scripts that fail, the content security policy) is kept.
"""
import base64
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

PROGRAM = "chromium-headless-shell"
FIELDS = ("textbox", "button", "link", "heading", "alert")


class Browser:
    """One browser with a profile of its own; rules: --host-resolver-rules."""

    def __init__(self, rules="", *more):
        self.dir = tempfile.mkdtemp(prefix="hutch-browser-")
        there, back = os.pipe(), os.pipe()
        ours = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (there[0], back[1])]

        def wire():  # the browser reads 3 and writes 4
            os.dup2(ours[0], 3)
            os.dup2(ours[1], 4)
        self.proc = subprocess.Popen(
            [PROGRAM, "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--no-proxy-server", "--host-resolver-rules=" + rules, "--user-data-dir=" + self.dir, *more, "about:blank"],
            preexec_fn=wire, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.dir + "/log", "wb"),
            start_new_session=True)
        for fd in (*ours, there[0], back[1]):
            os.close(fd)
        self.out, self.back, self.number = there[1], back[0], 0
        self.answers, self.pages, self.lock = {}, {}, threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        rest = b""
        while part := os.read(self.back, 1 << 20):
            *whole, rest = (rest + part).split(b"\0")
            for one in whole:
                m = json.loads(one)
                if "id" in m:
                    self.answers[m["id"]].put(m)
                elif m.get("sessionId") in self.pages:
                    self.pages[m["sessionId"]].on_event(m["method"], m["params"])

    def call(self, method, session=None, **params):
        with self.lock:
            self.number += 1
            n, box = self.number, queue.Queue()
            self.answers[n] = box
            os.write(self.out, json.dumps({"id": n, "method": method, "params": params, **({"sessionId": session} if session else {})}).encode() + b"\0")
        m = box.get(timeout=120)
        if "error" in m:
            raise RuntimeError("%s: %s" % (method, m["error"]["message"]))
        return m["result"]

    def page(self, url="about:blank"):
        """A page; each call a context of its own: cookies of one are unknown to the other."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        if url != "about:blank":
            page.go(url)
        return page

    def close(self):
        os.killpg(self.proc.pid, signal.SIGKILL)
        self.proc.wait(60)
        os.close(self.out)
        shutil.rmtree(self.dir, ignore_errors=True)


class Page:
    def __init__(self, browser, session):
        self.browser, self.session, self.complaints, self.addresses = browser, session, [], []
        browser.pages[session] = self
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.call(domain + ".enable")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def on_event(self, method, params):
        if method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description") or params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error" and params["entry"]["source"] != "network":
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.frameNavigated" and "parentId" not in params["frame"]:
            self.addresses.append(params["frame"]["url"] + params["frame"].get("urlFragment", ""))

    def go(self, url):
        self.call("Page.navigate", url=url)

    def eval(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r:
            raise RuntimeError(r["exceptionDetails"]["exception"].get("description"))
        return r["result"].get("value")

    def url(self):
        return self.eval("location.href")

    def text(self):
        return self.eval("document.body ? document.body.innerText : ''")

    def wait(self, text, seconds=60):
        """Until the page says it; else what it says instead is the error."""
        said, end = "", time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                said = self.text()
            except RuntimeError:  # between two documents
                said = ""
            if text in said:
                return said
            time.sleep(0.05)
        raise AssertionError("no %r in %r at %s" % (text, said, self.url()))

    def controls(self):
        """What a screen reader finds: (role, name, node), without what has no role."""
        found = []
        for n in self.call("Accessibility.getFullAXTree")["nodes"]:
            role = n.get("role", {}).get("value")
            if not n.get("ignored") and role in FIELDS:
                found.append((role, n.get("name", {}).get("value", ""), n.get("backendDOMNodeId")))
        return found

    def node(self, role, name):
        for r, n, node in self.controls():
            if (r, n) == (role, name):
                return node
        raise AssertionError("no %s %r among %s" % (role, name, [c[:2] for c in self.controls()]))

    def click(self, role, name):
        node = self.node(role, name)
        self.call("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
        q = self.call("DOM.getContentQuads", backendNodeId=node)["quads"][0]
        at = {"x": (q[0] + q[4]) / 2, "y": (q[1] + q[5]) / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def fill(self, name, value):
        self.click("textbox", name)
        for kind in ("keyDown", "keyUp"):  # what is there goes
            self.call("Input.dispatchKeyEvent", type=kind, key="a", code="KeyA", windowsVirtualKeyCode=65, modifiers=2, commands=["selectAll"])
        self.call("Input.insertText", text=value)

    def press(self, key, code):
        """Enter and Tab, as keys."""
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def dark(self, on=True):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if on else "light"}])

    def photo(self, path, width=1024, height=768):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
