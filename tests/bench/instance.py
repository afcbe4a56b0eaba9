"""instance - the private instance that is measured: its programs, its processes, one connection to it."""
import glob
import http.client
import json
import os
import re
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PG = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
CONTROL = ("api", "ops", "worker", "gateway", "agent")
PARTS = ("lighttpd", *CONTROL, "postgres", "redis")
SETTINGS = "auth {\n\trate_limits = false\n}\napi {\n\trequests = 0\n}\nagent {\n\tpool_size = %d\n}\n"


def sh(*args, **kw):
    """The output of a command that must go well."""
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


class Instance:
    """Started by quickstart; `machines` counts as a part: all QEMUs."""

    def __init__(self, run, build):
        self.run, self.build = os.path.abspath(run), os.path.abspath(build)
        self.http = None
        self.start(2)

    def start(self, pool_size):
        """Starts it, or restarts it with another number of ready clones."""
        os.makedirs(self.run, exist_ok=True)
        with open(self.run + "/local.conf", "w", encoding="utf-8") as f:
            f.write(SETTINGS % pool_size)
        self.pool_size = pool_size
        subprocess.run([TOP + "/quickstart", "--run", self.run, "--build", self.build, "--no-demo"],
                       check=True, stdout=subprocess.DEVNULL)
        self.env = dict(re.findall(r"export (\w+)=(.*)", self.read("env")))
        self.port = int(self.read("state/port"))
        self.sock = self.read("state/sock").strip()
        self.key = self.env["HUTCH_API_KEY"]
        self.http = None
        self.destroy(self.capsule())  # a shape's memory image is made after its first capsule, its pool after that
        self.wait_pool(pool_size)

    def stop(self):
        subprocess.run([TOP + "/quickstart", "--run", self.run, "--reset"], check=True, stdout=subprocess.DEVNULL)

    def read(self, name):
        with open(os.path.join(self.run, name), encoding="utf-8") as f:
            return f.read()

    def call(self, method, path, body=None, key=None, token=None):
        """One request on the connection that is kept; (status, parsed answer, headers)."""
        who = {"Authorization": "Bearer " + token} if token else {"X-API-Key": key or self.key}
        for again in (True, False):
            if not self.http:
                self.http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
            try:
                self.http.request(method, path, json.dumps(body) if body is not None else None,
                                  {**who, "Content-Type": "application/json"})
                r = self.http.getresponse()
                data = r.read()
                return r.status, json.loads(data) if data else None, r.headers
            except (http.client.HTTPException, OSError):
                self.http = None
                if not again:
                    raise
        return None

    def token(self):
        """An access token of the administrator."""
        status, said, _ = self.call("POST", "/v1/auth/login", {
            "email": self.env["HUTCH_ADMIN_EMAIL"], "password": self.env["HUTCH_ADMIN_PASSWORD"]})
        if status != 200:
            raise RuntimeError("login: %d %s" % (status, said))
        return said["token"] if "token" in said else said["access_token"]

    def capsule(self):
        """A new capsule, running; its id."""
        status, said, _ = self.call("POST", "/v1/capsules", {"template": "minimal"})
        if status != 201:
            raise RuntimeError("create: %d %s" % (status, said))
        while said["state"] != "running":
            if said["state"] == "error":
                raise RuntimeError("create: %s" % said)
            time.sleep(0.02)
            said = self.call("GET", "/v1/capsules/" + said["id"])[1]
        return said["id"]

    def execute(self, capsule, command="true", args=()):
        status, said, _ = self.call("POST", "/v1/capsules/%s/exec" % capsule, {"cmd": command, "args": list(args)})
        if status != 200 or said["exit_code"] != 0:
            raise RuntimeError("exec: %d %s" % (status, said))
        return said["stdout"]

    def destroy(self, capsule):
        self.call("DELETE", "/v1/capsules/" + capsule)

    def wait_pool(self, number):
        """Until so many clones are ready, and nothing is being started."""
        for _ in range(600):
            if sum(p["ready"] for p in self.agent_info()["pools"].values()) >= number:
                return
            time.sleep(0.1)
        raise RuntimeError("the pool is not full after a minute: %s" % self.agent_info()["pools"])

    def agent_info(self):
        return json.loads(sh("curl", "-fsS", "-m", "5", "--http2-prior-knowledge", "--unix-socket", self.sock + "/agent.sock",
                             "http://agent/agent/v1/info"))

    def agent_capsules(self):
        return json.loads(sh("curl", "-fsS", "-m", "5", "--http2-prior-knowledge", "--unix-socket", self.sock + "/agent.sock",
                             "http://agent/agent/v1/capsules"))["capsules"]

    def ctl(self, *args):
        return sh("setpriv", "--reuid=hutch", "--clear-groups", self.read("state/prefix").strip() + "/sbin/hutchctl",
                  "-c", self.run + "/hutch.conf", *args)

    def sql(self, text, db="hutch"):
        return sh(PG + "/psql", "-h", self.sock, "-U", "hutch_super", "-qAtX", "-v", "ON_ERROR_STOP=1", "-d", db, "-c", text).strip()

    def pids(self, part):
        """A part's first process and all below it; every QEMU for `machines`."""
        if part == "machines":
            mark = "-name hutch-%s-" % self.read("agent/instance").strip()
            out = subprocess.run(["pgrep", "-f", "--", mark], stdout=subprocess.PIPE, text=True, check=False).stdout
            return [int(p) for p in out.split()]
        found = tree([int(self.read("pid/" + part).split()[0])])
        return [p for p in found if p not in self.pids("machines")] if part == "agent" else found


def tree(found):
    """The processes and all below them. The list grows while it is walked."""
    for pid in found:
        out = subprocess.run(["pgrep", "-P", str(pid)], stdout=subprocess.PIPE, text=True, check=False).stdout
        found += [int(p) for p in out.split()]
    return found


class Cpu:
    """CPU time of groups of processes, {name: pids}, between two moments."""

    def __init__(self, groups):
        self.groups = groups
        self.before = {pid: cpu([pid]) for pids in groups.values() for pid in pids}

    def spent(self, number, groups=None):
        """Microseconds per operation, by group; `groups` as they are now: what started since counts whole."""
        return {name: sum(max(0, cpu([pid]) - self.before.get(pid, 0)) for pid in pids) / number / 1000
                for name, pids in (groups or self.groups).items()}


def cpu(pids):
    """Nanoseconds on a CPU so far, of all threads."""
    total = 0
    for pid in pids:
        for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
            try:
                with open(path, encoding="ascii") as f:
                    total += int(f.read().split()[0])
            except OSError:
                pass
    return total


def rollup(pids, field):
    """MB of all these processes."""
    kb = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
                kb += sum(int(n) for n in re.findall(r"^(?:%s):\s+(\d+)" % field, f.read(), re.M))
        except OSError:
            pass
    return kb / 1024


def pss(pids):
    """Proportional set size in MB: shared pages are divided among those who share them."""
    return rollup(pids, "Pss")


def own(pids):
    """What would be free again if they ended."""
    return rollup(pids, "Private_Clean|Private_Dirty")
