#!/usr/bin/env python3
"""tls.py - the instance's TLS: the API and the ports of capsules by their names, under the authority it made.

Needs an instance that was started with TLS (HUTCH_TLS_URL, HUTCH_CA); its names are not looked up.
"""
import http.client
import json
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

sys.dont_write_bytecode = True
if not os.environ.get("HUTCH_TLS_URL"):
    print("skip TLS: the instance has none")
    sys.exit(0)
URL = urlsplit(os.environ["HUTCH_TLS_URL"])
DOMAIN = os.environ["HUTCH_DOMAIN"]
KEY = {"X-API-Key": os.environ["HUTCH_API_KEY"], "Content-Type": "application/json"}
OURS = ssl.create_default_context(cafile=os.environ["HUTCH_CA"])
failed = 0


def check(name, good, why=""):
    global failed
    failed += not good
    print(f"ok {name}" if good else f"not ok {name}: {str(why)[:300]}", flush=True)


class Named(http.client.HTTPSConnection):
    """Every name is this machine."""

    def connect(self):
        self.sock = self._context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 90), server_hostname=self.host)


def call(method, host, path, body=None, headers=None, context=OURS):
    c = Named(host.split(":")[0], URL.port, timeout=90, context=context)
    try:
        c.request(method, path, None if body is None else json.dumps(body), dict({"Host": host}, **(headers or {})))
        a = c.getresponse()
        return a.status, a.read()
    finally:
        c.close()


status, _ = call("GET", URL.netloc, "/v1/health")
check("the API has a certificate of the authority", status == 200, status)
try:
    call("GET", URL.netloc, "/v1/health", context=ssl.create_default_context())
    check("who does not know the authority refuses it", False, "it was taken")
except ssl.SSLCertVerificationError:
    check("who does not know the authority refuses it", True)
status, body = call("POST", URL.netloc, "/v2/sandboxes", {"templateID": "minimal", "timeout": 120}, KEY)
check("a sandbox is made", status == 201, body)
box = json.loads(body)
check("its domain is the one of the certificate", box["domain"] == DOMAIN, box)
status, body = call("GET", f"49983-{box['sandboxID']}.{DOMAIN}", "/health")
check("its agent answers by its name", status == 204, (status, body))
status, body = call("GET", f"8080-{box['sandboxID']}.{DOMAIN}", "/")
check("a port that nobody listens on", (status, json.loads(body)["error_code"]) == (502, "port_closed"), body)
status, body = call("DELETE", URL.netloc, f"/sandboxes/{box['sandboxID']}", None, KEY)
check("it is ended", status == 204, body)
status, body = call("GET", f"49983-{box['sandboxID']}.{DOMAIN}", "/health")
check("then its name leads nowhere", status == 502, (status, body))
sys.exit(1 if failed else 0)
