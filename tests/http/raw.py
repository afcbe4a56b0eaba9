"""raw.py - an HTTP client that sends exactly the bytes it is told, and reads one answer."""
import json
import socket


class Answer:
    """Status, headers (lower case; repeated ones joined) and body of one answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def parse(data):
    """The last non-1xx answer in what a server sent."""
    while True:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        if 100 <= status < 200 and status != 101:
            data = rest
            continue
        break
    headers = {}
    for line in lines[1:]:
        k, _, v = line.partition(":")
        k, v = k.strip().lower(), v.strip()
        headers[k] = headers[k] + ", " + v if k in headers else v
    if headers.get("transfer-encoding", "").lower() == "chunked":
        rest = dechunk(rest)
    return Answer(status, headers, rest)


def dechunk(data):
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size.split(b";")[0] or b"0", 16)
        if n == 0:
            break
        out, data = out + data[:n], data[n + 2:]
    return out


def send(host, port, data, timeout=60, half_close=False):
    """Send data, read until the server closes. Data should ask for Connection: close."""
    with socket.create_connection((host, port), timeout=timeout) as s:
        try:
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before it had read all: the answer may still be there
        got = b""
        while True:
            try:
                part = s.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            got += part
    return parse(got)


def request(host, port, method, target, headers=(), body=b"", **kw):
    """One well-formed request, with Host, Connection: close and the body's length."""
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: %s:%d" % (host, port), "Connection: close"]
    lines += list(headers)
    if (body or method == "POST") and not any(h.lower().startswith("transfer-encoding") for h in lines):
        lines.append("Content-Length: %d" % len(body))
    return send(host, port, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body, **kw)
