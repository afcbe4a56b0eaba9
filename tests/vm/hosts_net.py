"""hosts_net.py - machines for tests: each a network namespace with an agent of its own, on one bridge.

Between an agent and the control plane stands a proxy that can answer in its place; a machine's link can be cut.
"""
import atexit
import http.server
import json
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

URL, RUN, BUILD, DB = (os.environ[n] for n in ("HUTCH_URL", "HUTCH_RUN", "HUTCH_BUILD", "HUTCH_TEST_DB"))
TAG = str(os.getpid() % 10000)
NET = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}."
BRIDGE, SWITCH = "hb" + TAG, "hutchsw" + TAG


def run(*words, check=True):
    return subprocess.run(words, check=check, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout.strip()


def call(method, path, body=None, url=URL, seconds=70, **headers):
    """(status, JSON or None)"""
    names = {k.replace("_", "-"): v for k, v in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        names["Content-Type"] = "application/json"
    req = urllib.request.Request(url + path, data, names, method=method)
    try:
        with urllib.request.urlopen(req, timeout=seconds) as a:
            text, status = a.read(), a.status
    except urllib.error.HTTPError as e:
        text, status = e.read(), e.code
    return status, json.loads(text) if text else None


def sql(statement):
    return run("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, DB)


def wait_for(what, seconds, is_so, step=0.2):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = is_so()
        if got:
            return got
        time.sleep(step)
    raise AssertionError(f"not within {seconds} s: {what}")


def hurry():
    """The monitor and the copies come every few seconds, not every 15 and 30: their turns of the clock are forgotten."""
    def again():
        while True:
            run("psql", "-qAtX", "-c", "DELETE FROM timer_slots WHERE name IN ('host.monitor', 'artifact.copy')", DB, check=False)
            time.sleep(3)
    threading.Thread(target=again, daemon=True).start()


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes on, unless server.fault(path) names a status."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, text = self.server.fault(self.path), b'{"error":{"code":"x","message":"as the test wants"}}'
        if not status:
            names = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "content-length")}
            req = urllib.request.Request(URL + self.path, body, names, method="POST")
            try:
                with urllib.request.urlopen(req, timeout=30) as a:
                    status, text = a.status, a.read()
            except urllib.error.HTTPError as e:
                status, text = e.code, e.read()
            except OSError:
                status = 502
        self.server.seen.append((self.path, status, body, text))
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if status != 204:
            self.wfile.write(text)


def bridge_up():
    """The switch is a namespace of its own: no firewall of this machine sees what passes between the others."""
    run("ip", "netns", "add", SWITCH)
    atexit.register(run, "ip", "netns", "del", SWITCH, check=False)
    run("ip", "-n", SWITCH, "link", "add", BRIDGE, "type", "bridge")
    run("ip", "-n", SWITCH, "link", "set", BRIDGE, "up")
    run("ip", "link", "add", "hr" + TAG, "type", "veth", "peer", "name", "root0", "netns", SWITCH)
    run("ip", "-n", SWITCH, "link", "set", "root0", "master", BRIDGE, "up")
    run("ip", "addr", "add", NET + "1/24", "dev", "hr" + TAG)
    run("ip", "link", "set", "hr" + TAG, "up")


class Machine:
    """One namespace, one agent."""

    def __init__(self, name, number, images):
        self.name, self.ns, self.link, self.ip = name, f"hutch{TAG}{name}", f"hv{TAG}{name}", f"{NET}{10 + number}"
        self.dir = f"/tmp/hosts-{TAG}-{name}"
        self.address, self.agent, self.id = f"https://{self.ip}:7443", None, None
        os.makedirs(self.dir, exist_ok=True)
        os.chmod(self.dir, 0o755)
        account = pwd.getpwnam("hutch")
        os.makedirs(self.dir + "/images")
        for made in (self.dir, self.dir + "/images"):
            os.chown(made, account.pw_uid, account.pw_gid)
        if images:
            os.symlink(os.path.realpath(f"{RUN}/images/minimal"), self.dir + "/images/minimal")
        atexit.register(self.remove)
        run("ip", "netns", "add", self.ns)
        run("ip", "-n", SWITCH, "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.ns)
        run("ip", "-n", SWITCH, "link", "set", self.link, "master", BRIDGE, "up")
        for words in (("addr", "add", self.ip + "/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            run("ip", "-n", self.ns, *words)
        self.proxy = http.server.ThreadingHTTPServer((NET + "1", 9000 + number), Proxy)
        self.proxy.fault, self.proxy.seen = lambda path: 0, []
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        base = 3_000_000 + os.getpid() % 1000 * 1000 + number * 100
        with open(self.dir + "/agent.conf", "w") as f:
            f.write(f'''host {{
	heartbeat_sec = 1
}}
agent {{
	user = "hutch"
	socket = "{self.dir}/agent.sock"
	listen = "{self.ip}:7443"
	state_dir = "{self.dir}/state"
	image_dir = "{self.dir}/images"
	control_url = "http://{NET}1:{9000 + number}"
	token_file = "{self.dir}/token"
	name = "{name}"
	uid_first = {base}
	uid_count = 50
	pool_size = 0
	refused_retry_sec = 2
	min_free_disk_gb = 1
	min_free_disk_percent = 1
	min_free_memory_percent = 2
	boot_timeout_sec = 300
}}
''')

    def start(self, token=None):
        if token:
            with open(self.dir + "/token", "w") as f:
                f.write(token)
            shutil.chown(self.dir + "/token", "hutch")
            os.chmod(self.dir + "/token", 0o600)
        self.log = open(self.dir + "/log", "ab")
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        self.agent = subprocess.Popen(["ip", "netns", "exec", self.ns, f"{BUILD}/hostagent/hutch-agent", "-c", self.dir + "/agent.conf"],
                                      stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env, start_new_session=True)

    def cut(self):
        run("ip", "-n", SWITCH, "link", "set", self.link, "down")

    def heal(self):
        run("ip", "-n", SWITCH, "link", "set", self.link, "up")

    def log_text(self):
        with open(self.dir + "/log", errors="replace") as f:
            return f.read()

    def api(self, method, path, body=None):
        """The control API on the unix socket: (status, text)."""
        words = ["curl", "-sS", "-m", "60", "--http2-prior-knowledge", "--unix-socket", self.dir + "/agent.sock", "-X", method, "-w", "\n%{http_code}"]
        out = run(*words, *(["--json", json.dumps(body)] if body is not None else []), "http://agent/agent/v1" + path)
        text, status = out.rsplit("\n", 1) if "\n" in out else ("", out)
        return int(status), text

    def capsules(self):
        return {c["id"]: c for c in json.loads(self.api("GET", "/capsules")[1])["capsules"]}

    def file(self, name):
        return self.dir + "/state/" + name

    def kill_machines(self):
        """kill -9 of each of its virtual machines."""
        instance = ""
        if os.path.exists(self.file("instance")):
            with open(self.file("instance")) as f:
                instance = f.read().strip()
        for pid in run("pgrep", "-f", f"[-]name hutch-{instance}-", check=False).split() if instance else []:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def remove(self):
        if self.agent and self.agent.poll() is None:
            self.agent.terminate()
            try:
                self.agent.wait(30)
            except subprocess.TimeoutExpired:
                self.agent.kill()
        self.kill_machines()
        if hasattr(self, "proxy"):
            self.proxy.shutdown()
        run("ip", "netns", "del", self.ns, check=False)
        if not os.environ.get("HOSTS_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
