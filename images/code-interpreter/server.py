"""server.py - runs code for clients on 127.0.0.1:49999: contexts over HTTP, one kernel process each.

The protocol is the one of E2B's code interpreter; images/README.md says what of it there is. HTTP only here:
kernels.py has the processes, kernel.py is what runs in one.
"""
import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import urllib.parse
import uuid

import kernels

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 49999
MOST_BODY = 16 << 20
MOST_CONTEXTS = 64
STALLED_SECONDS = 60


class Refused(Exception):
    """An answer that is not what was asked for."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Context:
    """A language, a folder, and the kernel that keeps the variables."""

    def __init__(self, language, cwd, name=None):
        self.id, self.language, self.cwd = name or str(uuid.uuid4()), language, cwd
        self.turn = threading.Lock()  # one execution at a time; held by it
        self.change = threading.Lock()  # whoever looks at the kernel or replaces it
        self.gone = False
        self.kernel = kernels.start(language, cwd)

    def describe(self):
        return {"id": self.id, "language": self.language, "cwd": self.cwd}

    def living(self):
        with self.change:
            if self.gone:
                raise Refused(404, "context %s does not exist" % self.id)
            if not self.kernel.alive():
                self.kernel.end()
                self.kernel = kernels.start(self.language, self.cwd)
            return self.kernel

    def restart(self):
        with self.change:
            if self.gone:
                raise Refused(404, "context %s does not exist" % self.id)
            self.kernel.end()
            self.kernel = kernels.start(self.language, self.cwd)

    def end(self):
        with self.change:
            self.gone = True
            self.kernel.end()


class Contexts:
    """All of them, by id; a language's default one is made when it is first asked for."""

    def __init__(self):
        self.lock, self.all, self.defaults = threading.Lock(), {}, {}

    def make(self, language, cwd, name=None):
        if language not in kernels.LANGUAGES:
            raise Refused(400, "language %s is not installed here; there are: %s"
                          % (json.dumps(language), ", ".join(kernels.LANGUAGES)))
        if not os.path.isdir(cwd):
            raise Refused(400, "cwd %s does not exist" % json.dumps(cwd))
        if len(self.all) >= MOST_CONTEXTS:
            raise Refused(429, "there are %d contexts already" % MOST_CONTEXTS)
        context = Context(language, cwd, name)
        self.all[context.id] = context
        return context

    def create(self, language, cwd):
        with self.lock:
            return self.make(language, cwd)

    def default(self, language):
        with self.lock:
            if language not in self.defaults:
                self.defaults[language] = self.make(language, os.path.expanduser("~"))
            return self.defaults[language]

    def get(self, name):
        with self.lock:
            if name not in self.all:
                raise Refused(404, "context %s does not exist" % json.dumps(name))
            return self.all[name]

    def remove(self, name):
        context = self.get(name)
        with self.lock:
            self.all.pop(name, None)
            self.defaults = {k: v for k, v in self.defaults.items() if v is not context}
        context.end()

    def list(self):
        with self.lock:
            return [c.describe() for c in self.all.values()]


CONTEXTS = Contexts()


def text(said, name, default):
    value = said.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Refused(400, "%s is not a text" % name)
    return value


def variables(said):
    value = said.get("env_vars") or {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise Refused(400, "env_vars is not an object of texts")
    for k, v in value.items():
        if not kernels.VARIABLE.fullmatch(k) or "\0" in v:
            raise Refused(400, "env_vars: %s cannot be a variable" % json.dumps(k))
    return value


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "code-interpreter", ""
    timeout = STALLED_SECONDS

    def log_message(self, *_):
        pass

    def reply(self, status, value):
        body = json.dumps(value).encode() if value is not None else b""
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if self.headers.get("Transfer-Encoding") or not 0 <= length <= MOST_BODY:
            self.close_connection = True
            raise Refused(413, "a body has a Content-Length of at most %d" % MOST_BODY)
        try:
            said = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(said, dict):
            raise Refused(400, "the body is not a JSON object")
        return said

    def route(self):
        path = urllib.parse.urlsplit(self.path).path.strip("/").split("/")
        said = self.body()
        what = (self.command, path[0], len(path))
        if what == ("GET", "health", 1):
            self.reply(200, "OK")
        elif what == ("POST", "execute", 1):
            self.execute(said)
        elif what == ("GET", "contexts", 1):
            self.reply(200, CONTEXTS.list())
        elif what == ("POST", "contexts", 1):
            made = CONTEXTS.create(text(said, "language", "python"), text(said, "cwd", os.path.expanduser("~")))
            self.reply(200, made.describe())
        elif what == ("DELETE", "contexts", 2):
            CONTEXTS.remove(path[1])
            self.reply(200, None)
        elif what == ("POST", "contexts", 3) and path[2] == "restart":
            CONTEXTS.get(path[1]).restart()
            self.reply(200, None)
        else:
            raise Refused(404, "there is nothing here")

    def answer(self):
        try:
            self.route()
        except Refused as e:
            self.reply(e.status, {"code": e.status, "message": str(e)})

    do_GET = do_POST = do_DELETE = answer

    def execute(self, said):
        code, env = text(said, "code", None), variables(said)
        name, language = text(said, "context_id", None), text(said, "language", None)
        if code is None:
            raise Refused(400, "code is missing")
        if name and language:
            raise Refused(400, "context_id and language exclude each other")
        context = CONTEXTS.get(name) if name else CONTEXTS.default(language or "python")
        with context.turn:
            run = context.living().run(code, env, said.get("silent") is True)
            self.stream(run)

    def stream(self, run):
        """Each message as a line of its own. Who leaves interrupts nothing: the rest is read for nobody."""
        listening = True
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        except OSError:
            listening = False
        for message in run:
            if not listening:
                continue
            line = json.dumps(message).encode() + b"\n"
            try:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            except OSError:
                listening = False
        if not listening:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A thread for each connection."""
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server(("127.0.0.1", PORT), Handler)
    CONTEXTS.default("python")
    server.serve_forever()


if __name__ == "__main__":
    main()
