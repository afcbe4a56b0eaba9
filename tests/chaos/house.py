"""house.py - the private instance that chaos.py shakes: its parts, its virtual machines, its database.

Whoever is killed here is found by the instance's own marks: pid files, parents, the name of a QEMU.
"""
import json
import os
import pwd
import re
import signal
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
PARTS = ("postgres", "redis", "api", "ops", "worker", "gateway", "lighttpd", "agent")

# What quickstart would do for one part that died, without building anything.
START = """
set -euo pipefail
say() { printf '%s\\n' "$1"; }
die() { say "$1"; exit 1; }
. "$TOP/tools/parts.sh"
start_part "$@"
"""


def wire(prefix, value):
    """The wire form of a uuid: prefix and 25 base36 digits."""
    n, out = int(value.replace("-", ""), 16), ""
    for _ in range(25):
        n, digit = divmod(n, 36)
        out = DIGITS[digit] + out
    return prefix + out


def until(seconds, check, step=0.25):
    """Repeats a check, which says what is missing, until it says nothing; what it said last."""
    deadline = time.monotonic() + seconds
    while (said := check()) and time.monotonic() < deadline:
        time.sleep(step)
    return said


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read().decode("utf-8", "replace")
    except OSError:
        return ""


class Process:
    """A line of /proc/PID/stat, as far as it matters; alive is False for a zombie and for nobody."""

    def __init__(self, pid):
        stat = read("/proc/%d/stat" % pid)
        name, rest = stat[stat.find("(") + 1:stat.rfind(")")], stat[stat.rfind(")") + 2:].split()
        self.pid, self.name = pid, name
        self.alive = bool(rest) and rest[0] not in "ZX"
        self.parent = int(rest[1]) if rest else 0
        self.start = rest[19] if rest else ""


def processes():
    return [p for p in (Process(int(d)) for d in os.listdir("/proc") if d.isdigit()) if p.alive]


class House:
    def __init__(self, env):
        self.env = env
        self.run, self.sock = env["HUTCH_RUN"], env["HUTCH_SOCK"]
        self.state = self.run + "/agent"
        self.logs = {}
        self.commands = {name: self.command(name) for name in PARTS}
        # how quickstart told the sanitizers of a dev build what to look for
        parts = dict(v.split("=", 1) for v in read("/proc/%d/environ" % self.pid("api")).split("\0") if "=" in v)
        self.settings = {k: v for k, v in parts.items() if k in ("ASAN_OPTIONS", "UBSAN_OPTIONS")}
        conf = read(env["HUTCH_CONF"])
        self.uid_first = int(re.search(r"uid_first = (\d+)", conf).group(1))
        self.uid_count = int(re.search(r"uid_count = (\d+)", conf).group(1))

    # ---- parts ----

    def pid(self, name):
        """The pid of a part's first process, or None: it is dead, or somebody else has its number."""
        words = read("%s/pid/%s" % (self.run, name)).split()
        if len(words) != 2:
            return None
        p = Process(int(words[0]))
        return p.pid if p.alive and p.start == words[1] else None

    def command(self, name):
        """User and command line of a part, as it was started last: its log begins with it."""
        lines = re.findall(r"^---- \S+Z: (.*)$", read("%s/log/%s.log" % (self.run, name)), re.M)
        user = pwd.getpwuid(os.stat("/proc/%d" % self.pid(name)).st_uid).pw_name
        # the agent is started as root and gives it away
        return ["root" if name == "agent" else user] + lines[-1].split(" ")

    def start(self, name):
        """As an operator would: the same command again. Says what went wrong."""
        if name == "postgres":  # a dead process that nobody has reaped yet still has its lock
            old = read(self.run + "/pg/postmaster.pid").split("\n")[0]
            until(60, lambda: old and os.path.exists("/proc/" + old))
        done = subprocess.run(["bash", "-c", START, "start", name, *self.commands[name]], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env={**os.environ, **self.settings, "TOP": TOP, "RUN": self.run})
        return done.stdout if done.returncode else until(120, lambda: self.missing(name))

    def missing(self, name):
        """What a part still lacks before it serves."""
        if not self.pid(name):
            return "%s does not run" % name
        if name == "postgres":
            return "" if self.sql("SELECT 1") == "1" else "PostgreSQL does not answer"
        if name == "redis":
            out = subprocess.run(["redis-cli", "-s", self.sock + "/redis.sock", "ping"], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, check=False).stdout
            return "" if out.strip() == "PONG" else "Redis does not answer"
        if name == "worker":
            return "" if self.children("worker", "relay") else "the worker has no relay"
        if name == "agent":
            return "" if "minimal" in str(self.agent("/info")) else "the agent does not answer"
        if name in ("api", "ops", "gateway"):
            return "" if self.children(name) else "%s has no processes" % name
        return ""

    def children(self, name, title=""):
        parent = self.pid(name)
        return [p.pid for p in processes() if parent and p.parent == parent and p.name.startswith(title)]

    # ---- the host ----

    def agent(self, path):
        """An answer of the host agent, or None."""
        out = subprocess.run(["curl", "-fsS", "-m", "5", "--http2-prior-knowledge", "--unix-socket",
                              self.sock + "/agent.sock", "http://agent/agent/v1" + path],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
        try:
            return json.loads(out)
        except ValueError:
            return None

    def machines(self):
        """Name of each virtual machine of this instance (-name hutch-INSTANCE-VM), and its pids."""
        mark, found = "hutch-%s-" % read(self.state + "/instance").strip(), {}
        for p in processes():
            if not p.name.startswith("qemu"):
                continue
            args = read("/proc/%d/cmdline" % p.pid).split("\0")
            if "-name" in args and args[args.index("-name") + 1].startswith(mark):
                found.setdefault(args[args.index("-name") + 1][len(mark):], []).append(p.pid)
        return found

    def folders(self):
        try:
            return sorted(os.listdir(self.state + "/vm"))
        except OSError:
            return []

    def journal(self):
        """The agent's records, oldest first; a line that is being written is left out."""
        out = []
        for line in read(self.state + "/journal").split("\n"):
            try:
                out.append(json.loads(line[9:]))
            except ValueError:
                continue
        return out

    def machine_of(self, capsule):
        """The pid of the QEMU that runs a capsule, or None."""
        names = [r["vm"] for r in self.journal() if r.get("id") == capsule and "vm" in r]
        pids = self.machines().get(names[-1], []) if names else []
        return pids[0] if pids else None

    def strangers(self):
        """Processes under one of the uids of virtual machines that are no machine of ours."""
        known = {p for pids in self.machines().values() for p in pids}
        out = []
        for p in processes():
            try:
                uid = os.stat("/proc/%d" % p.pid).st_uid
            except OSError:
                continue
            if self.uid_first <= uid < self.uid_first + self.uid_count and p.pid not in known:
                out.append("%d %s" % (p.pid, p.name))
        return out

    # ---- the database ----

    def sql(self, text):
        out = subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.env["HUTCH_TEST_DB"], "-c", text],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return out.stdout.strip() if not out.returncode else "psql: " + out.stdout.strip()

    def rows(self, text):
        out = self.sql(text)
        if out.startswith("psql: "):
            raise RuntimeError(out)
        return [line.split("|") for line in out.split("\n") if line]

    def ctl(self, *args):
        """hutchctl, as the account that the programs run under: status and output."""
        prefix = read(self.run + "/state/prefix").strip()
        program = next(p for d in ("bin", "sbin", "libexec/hutch") if os.access(p := prefix + "/" + d + "/hutchctl", os.X_OK))
        out = subprocess.run(["setpriv", "--reuid=hutch", "--regid=%d" % pwd.getpwnam("hutch").pw_gid, "--init-groups",
                              program, "-c", self.env["HUTCH_CONF"], *args], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, check=False)
        return out.returncode, out.stdout.strip()

    # ---- logs ----

    def mark_logs(self):
        """From here on logs count. PostgreSQL names the class of each error for as long."""
        self.sql("ALTER SYSTEM SET log_line_prefix = '%m [%p] %e '")
        self.sql("SELECT pg_reload_conf()")
        for name in os.listdir(self.run + "/log"):
            self.logs[name] = os.path.getsize("%s/log/%s" % (self.run, name))

    def unmark_logs(self):
        self.sql("ALTER SYSTEM RESET log_line_prefix")
        self.sql("SELECT pg_reload_conf()")

    def log_lines(self, pattern, names=None):
        out = []
        for name in sorted(names or os.listdir(self.run + "/log")):
            try:
                with open("%s/log/%s" % (self.run, name), "rb") as f:
                    f.seek(self.logs.get(name, 0))
                    text = f.read().decode("utf-8", "replace")
            except OSError:
                continue
            out += ["%s: %s" % (name, line) for line in text.split("\n") if re.search(pattern, line)]
        return out


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
