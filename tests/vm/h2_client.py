"""h2_client.py - a small HTTP/2 client on a socket, for what curl cannot do: CONNECT, and bad manners.

Requests are literal headers; of an answer only the status is decoded. The caller sees every frame.
"""
import socket
import struct

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM = 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATIC = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def number(prefix, bits, n):
    """An integer of HPACK (RFC 7541 §5.1) behind the bits of prefix."""
    most = (1 << bits) - 1
    if n < most:
        return bytes([prefix | n])
    out, n = bytes([prefix | most]), n - most
    while n > 127:
        out, n = out + bytes([n % 128 | 128]), n // 128
    return out + bytes([n])


def literal(name, value):
    name, value = name.encode(), value.encode()
    return b"\0" + number(0, 7, len(name)) + name + number(0, 7, len(value)) + value


def digits(data):
    """Digits in Huffman's code: 0 to 2 have five bits, the others six."""
    bits, text = "".join(f"{b:08b}" for b in data), ""
    while len(text) < 3:
        n = 5 if bits[:5] in ("00000", "00001", "00010") else 6
        text += str(int(bits[:n], 2) - (0 if n == 5 else 0b011001 - 3))
        bits = bits[n:]
    return text


def status_of(block):
    """The status, which servers send first."""
    while block[0] & 0xe0 == 0x20:
        block = block[1:]  # the size of the table
    if block[0] & 0x80:
        return STATIC[block[0] & 0x7f]
    at = 1 if block[0] & (0x3f if block[0] & 0x40 else 0x0f) else 9  # by index, or ":status" itself
    n, text = block[at] & 0x7f, block[at + 1:at + 1 + (block[at] & 0x7f)]
    return int(digits(text) if block[at] & 0x80 else text[:n])


class Session:
    def __init__(self, path, timeout=60, window=None, settings=b""):
        """path: of a unix socket, or a socket that is connected already. settings: entries that come first."""
        self.socket = socket.socket(socket.AF_UNIX) if isinstance(path, str) else path
        self.socket.settimeout(timeout)
        if isinstance(path, str):
            self.socket.connect(path)
        self.buffer, self.next = b"", 1
        settings += struct.pack(">HI", 1, 0) + (struct.pack(">HI", 4, window) if window is not None else b"")
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def request(self, head, flags=0):
        """head: pairs; the stream's number. flags: END_STREAM when there is no body."""
        stream, self.next = self.next, self.next + 2
        self.socket.sendall(frame(HEADERS, flags | 4, stream, b"".join(literal(k, v) for k, v in head)))
        return stream

    def data(self, stream, body, flags=0):
        self.socket.sendall(frame(DATA, flags, stream, body))

    def reset(self, stream, error=8):
        self.socket.sendall(frame(RST, 0, stream, struct.pack(">I", error)))

    def took(self, stream, n):
        self.socket.sendall(frame(WINDOW, 0, stream, struct.pack(">I", n)) +
                            frame(WINDOW, 0, 0, struct.pack(">I", n)))

    def frame(self):
        """(kind, flags, stream, body) of the next one; SETTINGS and PING are answered on the way."""
        while True:
            while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
                more = self.socket.recv(65536)
                if not more:
                    raise ConnectionError("the session ended")
                self.buffer += more
            n = int.from_bytes(self.buffer[:3], "big")
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big")
            body, self.buffer = self.buffer[9:9 + n], self.buffer[9 + n:]
            if kind == SETTINGS and not flags & 1:
                self.socket.sendall(frame(SETTINGS, 1, 0))
            elif kind == PING and not flags & 1:
                self.socket.sendall(frame(PING, 1, 0, body))
            elif kind not in (SETTINGS, WINDOW):
                return kind, flags, stream, body

    def answer(self, stream):
        """The status of the stream's answer."""
        while True:
            kind, _, of, body = self.frame()
            if of == stream and kind == HEADERS:
                return status_of(body)
            if of == stream and kind == RST:
                raise ConnectionError(f"reset with {struct.unpack('>I', body)[0]}")

    def body(self, stream, most=1 << 30, take=True):
        """(bytes, how it went on): until most bytes, "end", or "reset"."""
        got = b""
        while len(got) < most:
            kind, flags, of, body = self.frame()
            if of != stream:
                continue
            if kind == RST:
                return got, "reset"
            if kind == DATA:
                got += body
                if body and take:
                    self.took(stream, len(body))
                if flags & END_STREAM:
                    return got, "end"
        return got, "more"

    def close(self):
        self.socket.close()
