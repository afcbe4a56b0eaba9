#!/usr/bin/env python3
"""bigfile.py - 200 MiB into a capsule and back through the gateway: equal, streamed, nothing buffered."""
import hashlib
import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit

URL = urlsplit(os.environ.get("HUTCH_URL", "http://localhost:8080"))
KEY = {"X-API-Key": os.environ.get("HUTCH_API_KEY", "")}
LABEL = os.environ.get("HUTCH_WEB", "lighttpd")
MIB = int(os.environ.get("HUTCH_BIGFILE_MIB", "200"))
BLOCK = hashlib.shake_256(b"hutch").digest(1 << 20)
BOUNDARY = "--big--"


def call(method, path, body=None, headers=None):
    c = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=300)
    c.request(method, path, json.dumps(body) if isinstance(body, dict) else body,
              {**KEY, "Content-Type": "application/json", **(headers or {})},
              encode_chunked=not isinstance(body, dict) and body is not None)
    return c.getresponse()


def form(path):
    """A multipart body in pieces: chunked, so that nobody knows its length."""
    yield ('--%s\r\nContent-Disposition: form-data; name="path"\r\n\r\n%s\r\n--%s\r\nContent-Disposition: form-data; '
           'name="file"; filename="f"\r\n\r\n' % (BOUNDARY, path, BOUNDARY)).encode()
    for i in range(MIB):
        yield BLOCK[i % 251:] + BLOCK[:i % 251]
    yield ("\r\n--%s--\r\n" % BOUNDARY).encode()


def expected():
    h = hashlib.sha256()
    for i in range(MIB):
        h.update(BLOCK[i % 251:] + BLOCK[:i % 251])
    return h.hexdigest()


def check(name, good, why=""):
    print("ok %s: %s" % (LABEL, name) if good else "not ok %s: %s: %s" % (LABEL, name, str(why)[:300]), flush=True)
    return good


def up_and_down(capsule):
    base = "/v1/capsules/" + capsule
    began = time.monotonic()
    r = call("POST", base + "/files/write", form("/root/big"), {
        "Content-Type": "multipart/form-data; boundary=" + BOUNDARY, "Transfer-Encoding": "chunked"})
    if not check("%d MiB up" % MIB, r.status == 204, "%d %s" % (r.status, r.read()[:200])):
        return
    took, began = time.monotonic() - began, time.monotonic()
    r = call("POST", base + "/files/read", {"path": "/root/big"})
    h = hashlib.sha256()
    while part := r.read(1 << 20):
        h.update(part)
    print("# %.1f s up, %.1f s down" % (took, time.monotonic() - began))
    check("%d MiB down, equal" % MIB, r.status == 200 and h.hexdigest() == expected(), r.status)
    said = json.loads(call("POST", base + "/exec", {"cmd": "sha256sum", "args": ["/root/big"], "timeout_sec": 120}).read())
    check("the guest has the same", said.get("stdout", "").startswith(expected()), said)


def main():
    r = call("POST", "/v1/capsules", {"template": "minimal"})
    capsule = json.loads(r.read())
    if not check("a capsule", r.status == 201, capsule):
        return 1
    try:
        for _ in range(360):
            if json.loads(call("GET", "/v1/capsules/" + capsule["id"]).read()).get("state") == "running":
                break
            time.sleep(0.5)
        up_and_down(capsule["id"])
    finally:
        check("destroyed", call("DELETE", "/v1/capsules/" + capsule["id"]).status == 204)
    return 0


if __name__ == "__main__":
    sys.exit(main())
