"""backends.py - stand-ins for the pools and the gateway: each says what reached it, as JSON.

The api and ops stand-ins speak FastCGI, the gateway's HTTP/1.1, all on unix sockets. They let the
web servers' configurations be tested alone.
"""
import json
import os
import random
import socket
import struct
import threading
import time


def free_port():
    """Below those that connections get: nobody has it while it is not listened on."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(20000, 32000)))
            except OSError:
                continue
            return s.getsockname()[1]


class Fcgi(threading.Thread):
    """A FastCGI server that answers every request with its name, parameters and body length."""

    def __init__(self, path, name):
        super().__init__(daemon=True)
        self.name_ = name
        self.sock = listen(path)
        self.start()

    def run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        params, length, stream = b"", 0, conn.makefile("rb")
        while True:
            head = stream.read(8)
            if len(head) < 8:
                conn.close()
                return
            _, kind, rid, clen, pad, _ = struct.unpack("!BBHHBB", head)
            body = stream.read(clen)
            stream.read(pad)
            if kind == 4:
                params += body
            elif kind == 5:
                length += clen
                if clen == 0:
                    break
        said = {"pool": self.name_, "body": length, "env": pairs(params)}
        text = json.dumps(said).encode()
        out = b"Status: 200\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text
        try:
            for at in range(0, len(out), 8000):
                part = out[at:at + 8000]
                conn.sendall(struct.pack("!BBHHBB", 1, 6, rid, len(part), 0, 0) + part)
            conn.sendall(struct.pack("!BBHHBB", 1, 6, rid, 0, 0, 0))
            conn.sendall(struct.pack("!BBHHBB", 1, 3, rid, 8, 0, 0) + bytes(8))
        except OSError:
            pass
        conn.close()


class Gateway(threading.Thread):
    """An HTTP/1.1 server that notes when the first body byte came, and streams its answer."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.sock = listen(path)
        self.first_byte = None
        self.got = 0
        self.start()

    def run(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def serve(self, conn):
        stream = conn.makefile("rb")
        line = stream.readline().decode("latin-1").split()
        if len(line) < 3:
            conn.close()
            return
        headers = []
        while True:
            h = stream.readline().rstrip(b"\r\n").decode("latin-1")
            if not h:
                break
            headers.append(h.split(": ", 1))
        self.read_body(stream, {k.lower(): v for k, v in headers})
        if "slow=1" in line[1]:
            self.drip(conn)
            return
        text = json.dumps({"pool": "gateway", "target": line[1], "version": line[2],
                           "body": self.got, "headers": headers}).encode()
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(text) + text)
        conn.close()

    def read_body(self, stream, h):
        self.got, self.first_byte = 0, None
        if h.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(stream.readline().split(b";")[0] or b"0", 16)
                if size == 0:
                    stream.readline()
                    return
                self.take(stream, size)
                stream.readline()
        else:
            self.take(stream, int(h.get("content-length", 0)))

    def take(self, stream, size):
        while size:
            data = stream.read1(min(size, 65536))
            if not data:
                return
            self.first_byte = self.first_byte or time.monotonic()
            self.got += len(data)
            size -= len(data)

    def drip(self, conn):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(4):
            conn.sendall(b"2\r\n%d\n\r\n" % i)
            time.sleep(0.2)
        conn.sendall(b"0\r\n\r\n")
        conn.close()


def listen(path):
    """A listening unix socket that the web server's user may reach."""
    if os.path.exists(path):
        os.unlink(path)
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    os.chmod(path, 0o666)
    s.listen(512)
    return s


def pairs(data):
    """FastCGI name-value pairs; a name that comes twice is a list of its values."""
    at, out = 0, {}
    while at < len(data):
        lens = []
        for _ in range(2):
            n = data[at]
            if n & 0x80:
                n = struct.unpack("!I", data[at:at + 4])[0] & 0x7fffffff
                at += 4
            else:
                at += 1
            lens.append(n)
        k = data[at:at + lens[0]].decode("latin-1")
        v = data[at + lens[0]:at + sum(lens)].decode("latin-1")
        at += sum(lens)
        out[k] = v if k not in out else [out[k], v] if isinstance(out[k], str) else out[k] + [v]
    return out
