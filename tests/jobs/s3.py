"""s3.py - a small S3 server with TLS: checks the signature of each request, records them, fails when it is told to."""
import hashlib
import hmac
import re
import ssl
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def good_signature(self, body):
        """AWS Signature Version 4, from the request as it came."""
        s3 = self.server.s3
        m = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
                         self.headers.get("Authorization", ""))
        if not m or m.group(1) != s3.access or m.group(3) != s3.region:
            return False
        day, signed = m.group(2), m.group(4).split(";")
        payload = self.headers.get("x-amz-content-sha256", hashlib.sha256(body).hexdigest())
        if payload not in (hashlib.sha256(body).hexdigest(), "UNSIGNED-PAYLOAD") or "host" not in signed or "x-amz-date" not in signed:
            return False
        path, _, query = self.path.partition("?")
        headers = "".join("%s:%s\n" % (h, " ".join(self.headers[h].split())) for h in signed)
        canonical = "\n".join([self.command, path, query, headers, ";".join(signed), payload])
        date = self.headers["x-amz-date"]
        text = "AWS4-HMAC-SHA256\n%s\n%s/%s/s3/aws4_request\n%s" % (date, day, s3.region, hashlib.sha256(canonical.encode()).hexdigest())
        key = sign(sign(sign(sign(b"AWS4" + s3.secret.encode(), day), s3.region), "s3"), "aws4_request")
        return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), m.group(5))

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def serve(self):
        s3 = self.server.s3
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = urllib.parse.unquote(self.path)
        good = self.good_signature(body)
        with s3.lock:
            s3.seen.append((self.command, key, good))
            if s3.watch:
                s3.watch(self.command, key)
            if not good:
                s3.bad += 1
                return self.answer(403)
            if s3.fail and s3.fail(self.command, key):
                return self.answer(500)
            if self.command == "PUT":
                s3.objects[key] = body
                return self.answer(200)
            if key not in s3.objects:
                return self.answer(404)
            if self.command == "DELETE":
                del s3.objects[key]
                return self.answer(204)
            return self.answer(200, s3.objects[key])

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = serve


class S3:
    """One bucket server on a port of its own; endpoint is its address, ca its certificate."""

    def __init__(self, folder, access="AKCANARY", secret="s3-canary-secret/+=", region="eu-test-1"):
        self.access, self.secret, self.region = access, secret, region
        self.lock, self.seen, self.objects, self.bad = threading.RLock(), [], {}, 0
        self.fail = self.watch = None
        self.ca, key = folder + "/s3.pem", folder + "/s3.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1", "-addext",
                        "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", self.ca], check=True, stderr=subprocess.DEVNULL)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.s3 = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.endpoint = "https://127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def connection(self, name="mine", **more):
        return dict({"name": name, "endpoint": self.endpoint, "region": self.region, "bucket": "bucket", "prefix": "hutch/data",
                     "access_key_id": self.access, "secret_access_key": self.secret}, **more)
