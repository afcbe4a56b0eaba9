"""fakeagent.py - a host agent that says yes to everything (204), refuses all, or nothing at all while it is silent: HTTP/2 on a unix socket."""
import os
import socketserver
import struct
import threading

SETTINGS, HEADERS, PING = 4, 1, 6


def frame(kind, flags, stream, data=b""):
    return struct.pack(">I", len(data))[1:] + struct.pack(">BBI", kind, flags, stream) + data


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        if self.server.agent.silent or not self.rfile.read(24).startswith(b"PRI * HTTP/2.0"):
            return
        self.wfile.write(frame(SETTINGS, 0, 0))
        while True:
            head = self.rfile.read(9)
            if len(head) < 9:
                return
            length, kind, flags, stream = struct.unpack(">I", b"\0" + head[:3])[0], head[3], head[4], struct.unpack(">I", head[5:])[0]
            data = self.rfile.read(length)
            if kind == SETTINGS and not flags & 1:
                self.wfile.write(frame(SETTINGS, 1, 0))
            elif kind == PING and not flags & 1:
                self.wfile.write(frame(PING, 1, 0, data))
            if stream and flags & 1 and kind in (0, HEADERS):  # the request is whole; 0x89 is ":status: 204"
                self.server.agent.calls += 1
                self.answer(stream)

    def answer(self, stream):
        if not self.server.agent.refusal:
            self.wfile.write(frame(HEADERS, 5, stream, b"\x89"))
            return
        status, code = self.server.agent.refusal  # a literal that is not indexed: name 8 is ":status"
        self.wfile.write(frame(HEADERS, 4, stream, b"\x08\x03%d" % status))
        self.wfile.write(frame(0, 1, stream, b'{"error":{"code":"%s","message":"refused by the test"}}' % code.encode()))


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Agent:
    def __init__(self, folder):
        self.path, self.silent, self.calls, self.refusal = folder + "/agent.sock", False, 0, None
        self.server = Server(self.path, Session)
        self.server.agent = self
        os.chmod(self.path, 0o777)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
