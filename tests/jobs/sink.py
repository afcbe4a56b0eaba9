"""sink.py - an SMTP server that takes mails, or refuses them the way it is told to (STARTTLS, AUTH).

The local part of the recipient says what happens: r451@, r550@ (at RCPT), d451@, d554@ (after DATA), cut@ (the
connection ends after DATA), cutonce@. The attribute auth_code refuses logins, tls refuses STARTTLS.
"""
import base64
import random
import socket
import socketserver
import ssl
import subprocess
import threading


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", folder + "/smtp.key", "-out", folder + "/smtp.pem"],
                   check=True, stderr=subprocess.DEVNULL)


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        sink = self.server.sink
        self.tls = self.authed = False
        self.say("220 sink")
        try:
            while True:
                line = self.rfile.readline(2048)
                if not line or not self.command(sink, line.decode("utf-8", "replace").rstrip("\r\n")):
                    return
        except (OSError, ssl.SSLError):
            return

    def command(self, sink, line):
        word = line.split(" ")[0].upper()
        if word in ("EHLO", "HELO"):
            self.say("250-sink")
            if sink.tls and not self.tls:
                self.say("250-STARTTLS")
            if sink.user and self.tls:
                self.say("250-AUTH PLAIN")
            self.say("250 8BITMIME")
        elif word == "STARTTLS":
            self.say("220 go")
            self.request = sink.context.wrap_socket(self.request, server_side=True)
            self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
            self.tls = True
        elif word == "AUTH":
            self.auth(sink, line)
        elif word == "MAIL":
            self.say("250 ok" if self.authed or not sink.user else "530 log in first")
        elif word == "RCPT":
            self.rcpt = line[line.index("<") + 1:line.index(">")]
            kind = self.rcpt.split("@")[0]
            self.say("%s no" % kind[1:] if kind in ("r451", "r550") else "250 ok")
        elif word == "DATA":
            return self.data(sink)
        elif word == "QUIT":
            self.say("221 bye")
            return False
        else:
            self.say("250 ok")
        return True

    def auth(self, sink, line):
        parts = line.split(" ")
        if len(parts) < 3:
            self.say("334 ")
            parts.append(self.rfile.readline(2048).decode().strip())
        good = base64.b64decode(parts[2]).decode() == "\0%s\0%s" % (sink.user, sink.password)
        if sink.auth_code or not good:
            self.say("%d no" % (sink.auth_code or 535))
        else:
            self.authed = True
            self.say("235 ok")

    def data(self, sink):
        self.say("354 go on")
        lines = []
        while True:
            line = self.rfile.readline(4096)
            if not line or line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        kind = self.rcpt.split("@")[0]
        sink.seen.append((self.rcpt, b"".join(lines), self.tls, self.authed))
        if kind == "cut" or (kind == "cutonce" and sum(1 for m in sink.seen if m[0] == self.rcpt) == 1):
            self.request.close()
            self.connection.close()
            return False
        self.say("%s no" % kind[1:] if kind in ("d451", "d554") else "250 taken")
        return True


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Sink:
    def __init__(self, folder):
        make_certificate(folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder + "/smtp.pem", folder + "/smtp.key")
        self.user, self.password, self.auth_code, self.tls, self.seen = "hutch", "pass word", 0, True, []
        self.server = None
        while not self.server:  # a port below those that connections get: nobody has it while the sink is down
            self.port = random.randrange(20000, 32000)
            try:
                self.up()
            except OSError:
                pass

    def up(self):
        self.server = Server(("127.0.0.1", self.port), Session)
        self.server.sink = self
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self):
        self.server.shutdown()
        self.server.server_close()

    def of(self, rcpt):
        return [m for m in self.seen if m[0] == rcpt]
