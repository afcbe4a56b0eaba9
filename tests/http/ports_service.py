#!/usr/bin/env python3
"""ports_service.py - runs in a capsule: an HTTP server that tells what it was asked, streams, and echoes WebSockets.

usage: ports_service.py PORT,… ADDRESS [PEM]; with PEM, a key and a certificate, it speaks TLS. Only the standard library,
as the template has no more.
"""
import base64
import hashlib
import json
import socketserver
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = []  # joined once: what grows piece by piece is copied each time, which takes long under TCG
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(data)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, data, kind="application/json", **more):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for k, v in more.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def told(self):
        body = self.body()
        self.answer(200, json.dumps({
            "method": self.command, "path": self.path, "headers": self.headers.items(), "length": len(body),
            "sha": hashlib.sha256(body).hexdigest(), "tls": getattr(self.request, "asked", None)}).encode(), X_Service="yes", Set_Cookie="mine=1")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        n = 0
        while n < int(self.path.partition("n=")[2] or 1 << 30):
            self.chunk(b"data: %d\n\n" % n)
            n += 1
            time.sleep(0.2)
        self.wfile.write(b"0\r\n\r\n")

    def big(self):
        mib = int(self.path.partition("mib=")[2] or 1)
        self.send_response(200)
        self.send_header("Content-Length", str(mib << 20))
        self.end_headers()
        for _ in range(mib):
            self.wfile.write(b"x" * (1 << 20))

    def strange(self):
        """Answers that have no or two meanings: ?raw=base64url."""
        self.wfile.write(base64.urlsafe_b64decode(self.path.partition("raw=")[2]))
        self.close_connection = True

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key + GUID).digest()) + b"\r\n\r\n")
        self.close_connection = True
        while (head := self.rfile.read(2)) and len(head) == 2:
            size, mask = head[1] & 127, b"\0\0\0\0"
            if size == 126:
                size = struct.unpack(">H", self.rfile.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.rfile.read(8))[0]
            if head[1] & 128:
                mask = self.rfile.read(4)
            data = self.rfile.read(size)
            data = bytes(b ^ mask[i & 3] for i, b in enumerate(data))
            if head[0] & 15 == 8:
                self.wfile.write(bytes([0x88, len(data)]) + data)
                return
            size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
            self.wfile.write(head[:1] + size + data)

    def other(self):
        """An upgrade that is no WebSocket: lines come back in capitals."""
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\nhello\n")
        self.close_connection = True
        while line := self.rfile.readline():
            self.wfile.write(line.upper())

    def do_GET(self):
        upgrade = self.headers.get("Upgrade", "").lower()
        if upgrade == "websocket":
            self.websocket()
        elif upgrade == "shout":
            self.other()
        else:
            {"/events": self.events, "/big": self.big, "/raw": self.strange}.get(
                self.path.partition("?")[0], self.told)()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = do_PROPFIND = told


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
    tls = None

    def finish_request(self, request, client_address):
        super().finish_request(self.tls.wrap_socket(request, server_side=True) if self.tls else request, client_address)


def asked(sock, name, _):
    """What the client called us."""
    sock.asked = name or ""


if __name__ == "__main__":
    if len(sys.argv) > 3:
        Server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        Server.tls.load_cert_chain(sys.argv[3])
        Server.tls.sni_callback = asked
    ports = [int(p) for p in sys.argv[1].split(",")]
    for port in ports[1:]:
        threading.Thread(target=Server((sys.argv[2], port), Service).serve_forever, daemon=True).start()
    Server((sys.argv[2], ports[0]), Service).serve_forever()
