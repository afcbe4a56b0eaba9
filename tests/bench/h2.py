"""h2 - as much of HTTP/2 as a call to the guest needs: short bodies, one call at a time, no HPACK tables."""
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INDEXED = {0x88: 200, 0x89: 204, 0x8d: 404, 0x8e: 500}  # statuses that HPACK has in its static table


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def text(value):
    """A string without Huffman: its length in 7 bits and more, then its bytes."""
    raw = value.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, out = len(raw) - 127, b"\x7f"
    while rest >= 128:
        out += bytes([rest % 128 + 128])
        rest //= 128
    return out + bytes([rest]) + raw


class Session:
    """One connection; request() answers (status, body)."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self.left, self.stream = b"", 1

    def close(self):
        self.sock.close()

    def exactly(self, n):
        while len(self.left) < n:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError("the guest's session ended")
            self.left += more
        out, self.left = self.left[:n], self.left[n:]
        return out

    def request(self, method, path, headers=(), body=b""):
        fields = [(":method", method), (":scheme", "http"), (":authority", "guest"), (":path", path), *headers]
        block = b"".join(b"\x00" + text(n) + text(v) for n, v in fields)
        out = frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), self.stream, block)
        if body:
            out += frame(DATA, END_STREAM, self.stream, body)
        self.sock.sendall(out)
        try:
            return self.answer(self.stream)
        finally:
            self.stream += 2

    def answer(self, stream):
        status, said = None, b""
        while True:
            head = self.exactly(9)
            kind, flags = head[3], head[4]
            body = self.exactly(int.from_bytes(head[:3], "big"))
            if kind == SETTINGS and not flags & ACK:
                self.sock.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.sock.sendall(frame(PING, ACK, 0, body))
            elif kind == GOAWAY:
                raise EOFError("the guest says good-bye")
            if int.from_bytes(head[5:9], "big") != stream:
                continue
            if kind == RST:
                raise EOFError("the guest reset the call")
            if kind == HEADERS and status is None:
                status = next((INDEXED[b] for b in body[:3] if b in INDEXED), 0)
            if kind == DATA:
                said += body
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                return status, said
