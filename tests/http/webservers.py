#!/usr/bin/env python3
"""webservers.py - runs lighttpd and Apache with the committed configurations before stand-ins.

What is tested: which request reaches which pool, that bodies stream, what headers and errors the
servers add by themselves. Prints ok / not ok lines; needs no instance of Hutch.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from urllib.parse import parse_qs

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import backends  # noqa: E402
import raw  # noqa: E402

FAILED = 0
ID = "cl-0000000000000000000000001"


def check(name, good, why=""):
    global FAILED
    if not good:
        FAILED += 1
    print("ok %s" % name if good else "not ok %s: %s" % (name, str(why)[:300]), flush=True)


class Server:
    """One web server with the three stand-ins behind it."""

    def __init__(self, kind, top):
        self.kind, self.dir, self.port = kind, tempfile.mkdtemp(prefix="hutch-web-"), backends.free_port()
        os.chmod(self.dir, 0o755)
        for d in ("pid", "log", "tmp", "sock"):
            os.mkdir(self.path(d))
            os.chmod(self.path(d), 0o777)
        for d in ("conf", "dashboard"):
            shutil.copytree(os.path.join(TOP, d), self.path(d))  # readable by whom the server becomes
        self.config = self.path(kind + ".conf")
        with open(self.config, "w") as f:
            f.write(subprocess.run(
                [TOP + "/tools/fill", TOP + "/conf/%s/hutch.conf.in" % kind, "PORT=%d" % self.port,
                 "BIND=127.0.0.1", "WWW=" + self.path("conf/www"), "WEB=" + self.path("dashboard"), "RUN=" + self.dir,
                 "LOG=" + self.path("log"), "TMP=" + self.path("tmp"), "SOCK=" + self.path("sock"),
                 "CONF=" + self.path("conf"), "DOCS=" + top, "MODULES=/usr/lib/apache2/modules"],
                check=True, stdout=subprocess.PIPE, text=True).stdout)
        self.api = backends.Fcgi(self.path("sock/api.sock"), "api")
        self.ops = backends.Fcgi(self.path("sock/ops.sock"), "ops")
        self.gateway = backends.Gateway(self.path("sock/gateway.sock"))
        self.start()

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self):
        cmd = {"lighttpd": ["lighttpd", "-D", "-f", self.config],
               "apache": ["apache2", "-DFOREGROUND", "-f", self.config]}[self.kind]
        if os.getuid() == 0 and self.kind == "apache":
            cmd += ["-C", "User nobody", "-C", "Group nogroup"]
        env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin")
        self.proc = subprocess.Popen(cmd, env=env, start_new_session=True)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(self.kind + " does not start: " + self.errorlog())

    def stop(self):
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def ask(self, method, target, headers=(), body=b"", **kw):
        return raw.request("127.0.0.1", self.port, method, target, headers, body, **kw)

    def errorlog(self):
        with open(self.path("log/%s-error.log" % self.kind)) as f:
            return f.read()[-600:]


def test_routes(s):
    """Which request reaches which pool, by path and method."""
    for method, target, pool in [
            ("GET", "/v1/health", "api"), ("GET", "/v1", "api"), ("GET", "/v1/capsules", "api"),
            ("POST", "/v1/capsules", "ops"), ("POST", "/v1/capsules?wait=3", "ops"),
            ("GET", "/v1/capsules/" + ID, "api"), ("DELETE", "/v1/capsules/" + ID, "ops"),
            ("PATCH", "/v1/capsules/" + ID, "api"), ("POST", "/v1/auth/login", "ops"),
            ("POST", "/v1/capsules/%s/exec" % ID, "gateway"),
            ("PUT", "/v1/capsules/%s/exec" % ID, "gateway"),
            ("GET", "/v1/capsules/%s/processes/tag:a.b" % ID, "gateway"),
            ("POST", "/v1/capsules/%s/files/read?path=/a%%2Fb&x=%%20" % ID, "gateway"),
            ("POST", "/v1/capsules/%s/files/write" % ID, "gateway"),
            ("POST", "/v1/capsules/%s/execute" % ID, "api"),
            ("POST", "/v1/nothing", "api"), ("PROPFIND", "/v1/health", "api")]:
        a = s.ask(method, target)
        said = a.json() or {}
        check("%s: %s %s goes to %s" % (s.kind, method, target[:40], pool), said.get("pool") == pool,
              "%d %s" % (a.status, a.body[:120]))
        if said.get("pool") in ("api", "ops"):
            check("%s: REQUEST_URI of %s is raw" % (s.kind, target[:30]),
                  said["env"].get("REQUEST_URI") == target, said["env"].get("REQUEST_URI"))
        elif said.get("pool") == "gateway":
            # lighttpd normalises the query, which means the same; the path stays as it was
            said_path, _, said_query = said["target"].partition("?")
            path, _, query = target.partition("?")
            check("%s: target of %s is kept" % (s.kind, target[-60:]),
                  said_path == path and parse_qs(said_query) == parse_qs(query), said["target"])
    for target in ("/v1/templates/a%2Fb", "/v1/x/%41", "/v1/x?q=a%2Fb%20c+d"):
        said = s.ask("GET", target).json() or {"env": {}}
        check("%s: %s arrives unchanged" % (s.kind, target),
              said["env"].get("REQUEST_URI") == target, said)


def test_headers(s):
    """Names that could be confused, credentials, addresses."""
    said = s.ask("GET", "/v1/x", ["X_API_Key: bad", "X-API-Key: good", "Authorization: Bearer t",
                                  "Proxy: evil", "X_Forwarded_For: 6.6.6.6"]).json()
    env = said["env"]
    check(s.kind + ": X_API_Key is not X-API-Key", env.get("HTTP_X_API_KEY") == "good", env)
    check(s.kind + ": Authorization reaches the program", env.get("HTTP_AUTHORIZATION") == "Bearer t")
    check(s.kind + ": no HTTP_PROXY", not env.get("HTTP_PROXY"), env)
    check(s.kind + ": X_Forwarded_For is not X-Forwarded-For", not env.get("HTTP_X_FORWARDED_FOR"), env)
    check(s.kind + ": REMOTE_ADDR", env.get("REMOTE_ADDR") == "127.0.0.1")
    env = s.ask("GET", "/v1/x", ["X_API_Key: alone"]).json()["env"]
    check(s.kind + ": X_API_Key alone is nothing", not env.get("HTTP_X_API_KEY"), env)
    env = s.ask("GET", "/v1/x", ["X-API-Key: a", "X-API-Key: b"]).json()["env"]
    check(s.kind + ": two keys arrive as one bad one", env.get("HTTP_X_API_KEY") == "a, b", env)
    h = s.ask("POST", "/v1/capsules/%s/exec" % ID, ["X-Forwarded-For: 6.6.6.6"]).json()["headers"]
    fwd = [v for k, v in h if k.lower() == "x-forwarded-for"]
    check(s.kind + ": the peer's address is the last that the gateway sees", fwd == ["6.6.6.6, 127.0.0.1"], fwd)


def test_security(s):
    """Headers of the landing page and of the API."""
    page, api = s.ask("GET", "/"), s.ask("GET", "/v1/health")
    check(s.kind + ": landing page", page.status == 200 and b"<h1>Hutch</h1>" in page.body, page.status)
    for name, a in (("page", page), ("api", api)):
        h = a.headers
        check("%s: %s: nosniff, frame, referrer" % (s.kind, name),
              (h.get("x-content-type-options"), h.get("x-frame-options"), h.get("referrer-policy"))
              == ("nosniff", "DENY", "no-referrer"), h)
        check("%s: %s: CSP denies by default" % (s.kind, name),
              h.get("content-security-policy", "").startswith("default-src 'none'")
              and "unsafe" not in h["content-security-policy"], h)
        check("%s: %s: no HSTS without TLS" % (s.kind, name), "strict-transport-security" not in h)
        check("%s: %s: no version in Server" % (s.kind, name), "/" not in h.get("server", ""), h)
    check(s.kind + ": page is cacheable, CSP lets its style in",
          "max-age" in page.headers.get("cache-control", "")
          and "style-src 'self'" in page.headers["content-security-policy"], page.headers)
    check(s.kind + ": api CSP is a sandbox", "sandbox" in api.headers["content-security-policy"])
    css = s.ask("GET", "/style.css")
    check(s.kind + ": style.css", css.status == 200 and css.headers["content-type"].startswith("text/css"))
    doc = s.ask("GET", "/docs/openapi.json")
    check(s.kind + ": openapi.json", doc.status == 200 and doc.json() is not None
          and doc.headers["content-type"] == "application/json", doc.status)


def test_dashboard(s):
    """Its pages, at addresses that are not their files', under a policy that lets nothing foreign in."""
    policy = s.ask("GET", "/").headers["content-security-policy"]
    for target, kind in (("/app/api/cli?next=http://localhost:1", "text/html"), ("/app/port?port=1", "text/html"), ("/auth/corp-1/callback?error=x", "text/html"),
                         ("/app/api.js", "text/javascript"), ("/app/port.js", "text/javascript"), ("/app/app.css", "text/css")):
        a = s.ask("GET", target)
        check("%s: %s" % (s.kind, target), a.status == 200 and a.headers["content-type"].startswith(kind), "%d %s" % (a.status, a.headers))
        check("%s: %s: policy, no-cache" % (s.kind, target), a.headers.get("content-security-policy") == policy
              and a.headers.get("cache-control") == "no-cache" and a.headers.get("x-frame-options") == "DENY", a.headers)
    page = s.ask("GET", "/app/api/cli").body
    check(s.kind + ": no script or style in the page itself", b"<style" not in page and page.count(b"<script ") == 1 and b"style=" not in page)
    for target in ("/app/", "/app/nothing", "/app/api/cli/x", "/app/portal", "/auth/callback", "/auth/a/b/callback", "/app/../conf/README.md"):
        check("%s: %s is nothing" % (s.kind, target), s.ask("GET", target).status in (400, 403, 404), s.ask("GET", target).status)
    a = s.ask("GET", "/docs/api/cli?next=http%3A%2F%2Flocalhost%3A4711&cliVersion=2.19.0")
    where, _, query = a.headers.get("location", "").partition("?")
    check(s.kind + ": /docs/api/cli leads to it with its query", a.status == 302 and where.endswith("/app/api/cli")
          and parse_qs(query) == {"next": ["http://localhost:4711"], "cliVersion": ["2.19.0"]}, "%d %s" % (a.status, a.headers))


def is_error(a, status, slug):
    said = a.json() or {}
    return (a.status == status and said.get("error", {}).get("code") == slug
            and a.headers.get("content-type", "").startswith("application/json")
            and bool(a.headers.get("x-request-id")))


def error(s, name, a, status, slug):
    check("%s: %s is %d %s in JSON" % (s.kind, name, status, slug), is_error(a, status, slug),
          "%d %s %s" % (a.status, a.headers, a.body[:200]))


def test_errors(s):
    """What the server refuses by itself."""
    if s.kind == "apache":
        here = os.path.join(TOP, "conf/apache/error")
        for name in sorted(n for n in os.listdir(here) if n.endswith(".json")):
            with open(os.path.join(here, name)) as f, open(os.path.join(here, "e2b", name)) as g:
                one, two = json.load(f)["error"], json.load(g)
            check("apache: %s says the same in both shapes" % name, two == {"code": int(name[:3]), "message": one["message"], "error_code": one["code"]}, two)
    lt = s.kind == "lighttpd"
    error(s, "missing page", s.ask("GET", "/nothing"), 404, "not_found")
    error(s, "%00", s.ask("GET", "/v1/a%00b"), 400 if lt else 404, "invalid_request" if lt else "not_found")
    error(s, "../..", s.ask("GET", "/v1/../../etc/passwd"), 400, "invalid_request")
    error(s, "long URI", s.ask("GET", "/v1/" + "a" * 40000), 431 if lt else 414,
          "headers_too_large" if lt else "uri_too_long")
    error(s, "huge header", s.ask("GET", "/v1/x", ["X-A: " + "a" * 40000]), 431 if lt else 400,
          "headers_too_large" if lt else "invalid_request")
    error(s, "no Host", raw.send("127.0.0.1", s.port, b"GET /v1/x HTTP/1.1\r\nConnection: close\r\n\r\n"),
          400, "invalid_request")
    error(s, "space in a header's name", s.ask("GET", "/v1/x", ["X A: b"]), 400, "invalid_request")
    a = s.ask("TRACE", "/", ["Cookie: secret"])
    check(s.kind + ": TRACE gives nothing back", b"secret" not in a.body and a.status >= 400, a.status)
    if lt:
        error(s, "2 MiB of JSON", s.ask("POST", "/v1/capsules", (), b"x" * (2 << 20)), 413, "too_large")
        error(s, "2 MiB chunked", s.ask("POST", "/v1/capsules", ["Transfer-Encoding: chunked"],
              b"200000\r\n" + b"x" * (2 << 20) + b"\r\n0\r\n\r\n"), 413, "too_large")
    for pool, method, target in (("api", "GET", "/v1/x"), ("ops", "POST", "/v1/capsules"),
                                 ("gateway", "POST", "/v1/capsules/%s/exec" % ID), ("api", "GET", "/templates"),
                                 ("api", "GET", "/v2/sandboxes?limit=3"), ("ops", "POST", "/sandboxes")):
        sock = s.path("sock/%s.sock" % pool)
        os.rename(sock, sock + ".away")
        a = s.ask(method, target)
        if target.startswith("/v1"):
            error(s, pool + " away", a, 503, "unavailable")
        else:
            check("%s: %s %s away, as E2B's clients read it" % (s.kind, pool, target), a.status == 503 and a.headers.get("x-request-id")
                  and a.headers.get("content-type", "").startswith("application/json")
                  and a.json() == {"code": 503, "message": "Not available at the moment", "error_code": "unavailable"}, "%d %s" % (a.status, a.body))
        check("%s: %s away has Retry-After" % (s.kind, pool), "retry-after" in a.headers, a.headers)
        os.rename(sock + ".away", sock)
        for _ in range(300):
            a = s.ask(method, target)
            if a.status == 200:
                break
            time.sleep(0.1)
        check("%s: %s back" % (s.kind, pool), a.status == 200, a.status)


def test_streams(s):
    """Bodies of any kind reach the programs; the gateway's pass as they come."""
    a = s.ask("POST", "/v1/capsules", ["Transfer-Encoding: chunked"], b"5\r\nabcde\r\n0\r\n\r\n")
    check(s.kind + ": a chunked body reaches the pool", (a.json() or {}).get("body") == 5, a.body[:200])
    target = "/v1/capsules/%s/files/write" % ID
    for kind in ("chunked", "length"):
        for _ in range(3):  # a machine that stands still for as long holds up the first half, too
            started, ended, a = slow_upload(s, target, kind)
            if s.gateway.first_byte and s.gateway.first_byte < ended - 0.5:
                break
        check("%s: %s upload streams" % (s.kind, kind),
              s.gateway.first_byte and s.gateway.first_byte < ended - 0.5, "%s: %s" % (a.status, a.body[:200]))
        check("%s: %s upload is whole" % (s.kind, kind), (a.json() or {}).get("body") == 4 << 20,
              "%s %s" % (a.status, a.body[:200]))
    left = [f for f in os.listdir(s.path("tmp")) if os.path.getsize(s.path("tmp/" + f)) > 0]
    check(s.kind + ": nothing of it went to disk", not left, left)
    for _ in range(5):
        gaps = answer_times(s, "/v1/capsules/%s/exec?slow=1" % ID)
        if len(gaps) >= 4 and gaps[-1] - gaps[0] > 0.4:
            break
    check(s.kind + ": an answer streams", len(gaps) >= 4 and gaps[-1] - gaps[0] > 0.4, gaps)


def test_ports(s):
    """What is for a port of a capsule goes to the gateway before any path, and nothing is added to its answer."""
    bare = ID[3:]
    for name, method, target, host, headers in [
            ("host name", "GET", "/", "8080-%s.localhost:%d" % (bare, s.port), []),
            ("host name, cl-", "PUT", "/v1/health", "1-%s.d.example" % ID, []),
            ("host name, POST of an ops path", "POST", "/v1/capsules", "65535-%s.d.example" % ID, []),
            ("host name, our pages' paths", "GET", "/docs/api/cli", "8080-%s.d.example" % ID, []),
            ("host name, our files' paths", "GET", "/app/api/cli", "8080-%s.d.example" % ID, []),
            ("header, our files' paths", "GET", "/app/port", "h", ["E2b-Sandbox-Id: " + bare]),
            ("header", "GET", "/v1/health", "h", ["E2b-Sandbox-Id: " + bare, "E2b-Sandbox-Port: 49983"]),
            ("header, POST", "POST", "/process.Process/List", "h", ["E2b-Sandbox-Id: " + bare]),
            ("header, DELETE", "DELETE", "/v1/capsules/" + ID, "h", ["E2b-Sandbox-Id: " + bare]),
            ("signature", "GET", "/files?path=a%2Fb&signature=v1_x", "h", []),
            ("signature, POST", "POST", "/files?signature=v1_x&path=a", "h", []),
            ("escaped path", "GET", "/a%2Fb/c%20d?q=1", "8080-%s.localhost" % bare, [])]:
        a = raw.send("127.0.0.1", s.port, ("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n" % (
            method, target, host, "".join(h + "\r\n" for h in headers))).encode())
        said = a.json() or {}
        check("%s: %s goes to the gateway" % (s.kind, name), said.get("pool") == "gateway", "%d %s" % (a.status, a.body[:120]))
        check("%s: %s: path, Host" % (s.kind, name), said.get("target", "").split("?")[0] == target.split("?")[0]
              and ["Host", host] in said.get("headers", []), said)
        check("%s: %s: nothing is added" % (s.kind, name), not set(a.headers) & {
            "x-frame-options", "content-security-policy", "x-content-type-options", "referrer-policy", "cache-control",
            "cross-origin-resource-policy", "cross-origin-opener-policy", "permissions-policy"}, a.headers)
        proto = [v for k, v in said.get("headers", []) if k.lower() == "x-forwarded-proto"]
        check("%s: %s: X-Forwarded-Proto" % (s.kind, name), proto == ["http"], said)
    for target, host in (("/v1/health", "8080-short.localhost"), ("/v1/health", "x-%s.localhost" % bare), ("/v1/health", "localhost")):
        a = raw.send("127.0.0.1", s.port, ("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)).encode())
        check("%s: %s is no port" % (s.kind, host), (a.json() or {}).get("pool") == "api", a.body[:120])
    a = s.ask("GET", "/files?path=x")
    check(s.kind + ": /files without a signature is nothing", a.status == 404, a.status)


def slow_upload(s, target, kind):
    """4 MiB in two halves, three seconds apart."""
    half = b"x" * (2 << 20)
    head = "POST %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" % target
    head += "Transfer-Encoding: chunked\r\n\r\n" if kind == "chunked" else "Content-Length: %d\r\n\r\n" % (4 << 20)
    with socket.create_connection(("127.0.0.1", s.port), timeout=90) as c:
        started = time.monotonic()
        c.sendall(head.encode())
        for i in range(2):
            c.sendall((b"200000\r\n" + half + b"\r\n") if kind == "chunked" else half)
            if i == 0:
                time.sleep(3)
        ended = time.monotonic()
        if kind == "chunked":
            c.sendall(b"0\r\n\r\n")
        got = b""
        while part := c.recv(65536):
            got += part
    return started, ended, raw.parse(got)


def answer_times(s, target):
    """When the parts of a slow answer came."""
    times = []
    with socket.create_connection(("127.0.0.1", s.port), timeout=90) as c:
        c.sendall(("POST %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % target).encode())
        while c.recv(65536):
            times.append(time.monotonic())
    return times


def main():
    docs = tempfile.mkdtemp(prefix="hutch-docs-")
    os.chmod(docs, 0o755)
    with open(docs + "/openapi.json", "w") as f:
        json.dump({"openapi": "3.1.0"}, f)
    for kind in sys.argv[1:] or ["lighttpd", "apache"]:
        if not shutil.which({"apache": "apache2"}.get(kind, kind), path="/usr/sbin:" + os.environ["PATH"]):
            print("skip %s: not installed" % kind)
            continue
        s = Server(kind, docs)
        try:
            for test in (test_routes, test_headers, test_security, test_dashboard, test_errors, test_streams, test_ports):
                test(s)
        finally:
            s.stop()
    shutil.rmtree(docs)
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
