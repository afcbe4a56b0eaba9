"""guest_front.py - checks of the test program's HTTP/1.1 front: what clients without a machine use."""
import http.client
import json
import os
import socket
import struct
import subprocess

from guest_lib import ME, P, check, frame, listens, same, until

TOKEN = "token-of-the-front"


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


class Front:
    """A program of its own, with a front."""

    def __init__(self, program):
        for _ in range(10):  # somebody else may take the port first: then the program ends
            self.port = free_port()
            self.process = subprocess.Popen([program, "--listen-tcp", str(self.port), "--token", TOKEN],
                                            stderr=subprocess.DEVNULL)
            if until("it listens", lambda: self.process.poll() is not None and "ended" or listens(self.process.pid, self.port)) is True:
                break

    def raw(self, data):
        s = socket.create_connection(("127.0.0.1", self.port), 10)
        s.sendall(data)
        return s

    def end(self):
        self.process.terminate()
        same(self.process.wait(60), 0, "the front's status")


def answer(s):
    data = b""
    try:
        while more := s.recv(65536):
            data += more
    except TimeoutError:
        pass
    s.close()
    return data


@check("agent")
def the_front_speaks_http_1_1(a):
    f = Front(a.process.args[0])
    try:
        c = http.client.HTTPConnection("127.0.0.1", f.port, timeout=60)
        init = json.dumps({"epoch": 1, "accessToken": TOKEN, "defaultUser": ME.pw_name})
        c.request("POST", "/init", init)
        same((r := c.getresponse()).status, 204)
        r.read()
        data, path = os.urandom(3 << 20), f"{a.dir}/front"
        pieces = (data[i:i + 70000] for i in range(0, len(data), 70000))
        c.request("POST", f"/files?path={path}", pieces, {"content-type": "application/octet-stream"})
        same((r := c.getresponse()).status, 200)
        same(json.loads(r.read())[0]["path"], path)
        c.request("GET", f"/files?path={path}")
        r = c.getresponse()
        same((r.status, r.read() == data, r.getheader("content-length")), (200, True, str(len(data))))
        c.request("POST", P + "Start", frame({"process": {"cmd": "echo", "args": ["hi"]}}),
                  {"content-type": "application/connect+json"})
        r = c.getresponse()
        same((r.status, r.getheader("transfer-encoding")), (200, "chunked"))
        body = r.read()
        same(body[-7:], struct.pack(">BI", 2, 2) + b"{}")
        c.request("GET", "/envs", headers={"X-Access-Token": "wrong"})
        same((r := c.getresponse()).status, 401)
        r.read()
        c.request("GET", f"/files?path={path}&signature=v1_x")
        same((r := c.getresponse()).status, 401)
        r.read()
        c.close()
    finally:
        f.end()


@check("agent")
def the_front_is_strict(a):
    f = Front(a.process.args[0])
    try:
        for bad in (b"GET / HTTP/1.0\r\nhost: x\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                    b"GET http://x/ HTTP/1.1\r\nhost: x\r\n\r\n", b"G@T / HTTP/1.1\r\nhost: x\r\n\r\n",
                    b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n", b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
                    b"GET / HTTP/1.1\r\nhost: x\r\na: \x01\r\n\r\n",
                    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
                    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
                    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
                    b"GET / HTTP/1.1\r\nhost: x\r\nb: " + b"c" * 40000 + b"\r\n\r\n",
                    b"GET / HTTP/1.1\r\nhost: x\r\n" + b"b: c\r\n" * 200 + b"\r\n"):
            same(answer(f.raw(bad))[:13], b"HTTP/1.1 400 ", f"answer to {bad[:60]}")
        for bad in (b"xyz\r\n", b"fffffffff\r\n", b"1\r\nab\r\n", b"0\r\nt: v\r\n\r\n"):
            s = f.raw(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + bad)
            if b"HTTP/1.1 400 " not in (got := answer(s)):
                raise AssertionError(f"{got} to {bad}")
        two = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 2 + b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        same(answer(f.raw(two)).count(b"HTTP/1.1 204"), 3)
    finally:
        f.end()
