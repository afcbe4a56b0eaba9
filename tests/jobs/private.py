"""private.py - a private PostgreSQL, Redis and hutch-worker for the tests of this folder.

Only the standard library, psql and redis-cli. Everything lives in one folder under /tmp and ends with the test.
"""
import atexit
import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.environ.get("HUTCH_BUILD", os.getcwd())
WORKER = os.path.join(BUILD, "workers/hutch-worker")
PLATFORM = "00000000-0000-0000-0000-000000000000"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def wire(prefix, value):
    """The wire form of a uuid: prefix and 25 base36 digits."""
    n, out = uuid.UUID(value).int, ""
    for _ in range(25):
        n, d = divmod(n, 36)
        out = DIGITS[d] + out
    return prefix + out


def wait_for(what, seconds=10.0, step=0.05):
    """True as soon as what() is; False when the time is over.

    The seconds are what an idle machine needs at most; the tests run beside others, on few cores, and get more.
    """
    end = time.monotonic() + max(seconds, min(4 * seconds, 60))
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(step)
    return bool(what())


class Private:
    """One set of servers. start() skips the test when a server is not installed."""

    def __init__(self, **conf):
        self.dir = tempfile.mkdtemp(prefix="hutch-jobs-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.conf = {"workers": {}, "redis": {}, "mail": {}, "smtp": {}, "db": {}, "http": {}, "secrets": {}}
        for section, values in conf.items():
            self.conf.setdefault(section, {}).update(values)
        self.workers, self.redis = [], None
        self.account = None
        if os.geteuid() == 0:
            self.account = next((n for n in ("postgres", "nobody") if self.known(n)), None)
        atexit.register(self.stop)
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, lambda *_: sys.exit(1))

    @staticmethod
    def known(name):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            return None

    # ---- servers ----

    def start(self):
        bins = sorted(glob.glob("/usr/lib/postgresql/*/bin")) + sorted(glob.glob("/usr/pgsql-*/bin"))
        pg = bins[-1] if bins else os.path.dirname(shutil.which("initdb") or "")
        if not pg or not shutil.which("redis-server") or not os.path.exists(WORKER):
            print("skip %s: needs PostgreSQL, redis-server and %s" % (os.path.basename(sys.argv[0]), WORKER))
            print("0 passed, 0 failed, 1 skipped")
            sys.exit(0)
        self.pg_bin = pg
        data = self.dir + "/pg"
        os.mkdir(data, 0o700)
        if self.account:
            shutil.chown(data, self.account)
            shutil.chown(self.dir, self.account)
        self.as_account([pg + "/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N"])
        self.as_account([pg + "/pg_ctl", "-D", data, "-w", "-l", self.dir + "/pg.log", "-o",
                         "-c listen_addresses= -k %s -c fsync=off -c max_connections=100" % self.dir, "start"])
        self.start_redis()
        self.psql("postgres", "postgres", "CREATE ROLE hutch_owner LOGIN CREATEROLE; CREATE ROLE hutch_app LOGIN;"
                  "CREATE ROLE hutch_work LOGIN; CREATE ROLE hutch_forget; GRANT hutch_forget TO hutch_owner WITH ADMIN OPTION;")
        self.psql("postgres", "postgres", "CREATE DATABASE hutch OWNER hutch_owner")
        for f in sorted(glob.glob(TOP + "/sql/migrations/0*.sql")):
            subprocess.run(["psql", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-U", "hutch_owner", "-d", "hutch",
                            "-f", f], check=True, stdout=subprocess.DEVNULL)
        with open(self.dir + "/master.key", "w") as f:
            f.write("5a" * 32 + "\n")
        os.chmod(self.dir + "/master.key", 0o600)
        os.mkdir(self.dir + "/mail", 0o700)
        self.write_conf()

    def as_account(self, command):
        if self.account:
            command = ["setpriv", "--reuid", self.account, "--regid", str(pwd.getpwnam(self.account).pw_gid),
                       "--clear-groups"] + command
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start_redis(self):
        self.redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", self.dir + "/redis.sock", "--save", "",
                                       "--appendonly", "no", "--dir", self.dir], stdout=subprocess.DEVNULL)
        assert wait_for(lambda: self.redis_cli("PING") == "PONG"), "redis does not start"

    def stop_redis(self):
        self.redis.kill()
        self.redis.wait()
        self.redis = None

    def restart_postgres(self):
        """As after a crash of the server: nothing is flushed, every connection breaks."""
        self.as_account([self.pg_bin + "/pg_ctl", "-D", self.dir + "/pg", "-m", "immediate", "-w", "restart", "-l", self.dir + "/pg.log"])

    def write_conf(self):
        self.conf["redis"].setdefault("socket", self.dir + "/redis.sock")
        self.conf["db"].setdefault("work_url", "host=%s dbname=hutch user=hutch_work" % self.dir)
        self.conf["mail"].setdefault("dir", self.dir + "/mail")
        self.conf["mail"].setdefault("templates", TOP + "/share/mail")
        self.conf["secrets"].setdefault("master_file", self.dir + "/master.key")
        with open(self.dir + "/hutch.conf", "w") as f:
            for section, values in self.conf.items():
                f.write("%s {\n" % section)
                for k, v in values.items():
                    f.write("\t%s = %s\n" % (k, json.dumps(v)))
                f.write("}\n")

    def start_worker(self):
        log = open(self.dir + "/worker%d.log" % len(self.workers), "wb")
        p = subprocess.Popen([WORKER, "-c", self.dir + "/hutch.conf"], stderr=log)
        self.workers.append(p)
        return p

    def stop_worker(self, p, seconds=60):
        p.send_signal(signal.SIGTERM)
        try:
            return p.wait(seconds)
        except subprocess.TimeoutExpired:
            p.kill()
            return None

    def stop(self):
        for p in self.workers:
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        for p in self.workers:
            try:
                p.wait(30)
            except subprocess.TimeoutExpired:
                p.kill()
        if self.redis:
            self.redis.kill()
        if os.path.exists(self.dir + "/pg/postmaster.pid"):
            self.as_account([self.pg_bin + "/pg_ctl", "-D", self.dir + "/pg", "-m", "immediate", "stop"])
        if os.environ.get("KEEP"):
            print("# kept: " + self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- talking to them ----

    def psql(self, user, db, sql):
        r = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.dir, "-U", user, "-d", db, "-c", sql],
                           capture_output=True, text=True)
        if r.returncode:
            raise RuntimeError(r.stderr.strip())
        return r.stdout.strip()

    def sql(self, text, user="hutch_work"):
        return self.psql(user, "hutch", text)

    def rows(self, text):
        return [line.split("|") for line in self.sql(text).split("\n") if line]

    def redis_cli(self, *args):
        r = subprocess.run(["redis-cli", "-s", self.dir + "/redis.sock", *map(str, args)], capture_output=True, text=True)
        return r.stdout.strip()

    def redis_all(self):
        """Every key of Redis with its value, whatever its type, as lines of text."""
        return self.redis_cli("EVAL", "local read = {string = {'GET'}, list = {'LRANGE', 0, -1}, hash = {'HGETALL'}, set = {'SMEMBERS'}, "
                              "zset = {'ZRANGE', 0, -1}, stream = {'XRANGE', '-', '+'}} local out = {} "
                              "for _, k in ipairs(redis.call('KEYS', '*')) do local c = read[redis.call('TYPE', k).ok] "
                              "out[#out + 1] = k .. ' ' .. cjson.encode(redis.call(c[1], k, c[2], c[3])) end return out", 0).split("\n")

    def logs(self):
        """All that the programs wrote to their logs."""
        return "".join(open(f, errors="replace").read() for f in glob.glob(self.dir + "/*.log") if not f.endswith("/pg.log"))

    def children(self, parent, kind):
        """Pids of the children of a worker parent, by their short name: fast, mail, relay.0, sweeper.0."""
        out = []
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                text = open(path).read()
            except OSError:
                continue
            name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
            if int(rest[1]) == parent.pid and name.startswith(kind):
                out.append(int(text.split()[0]))
        return out

    def reload(self, parent, kind):
        """SIGHUP; returns when those who read the old configuration have gone."""
        old = set(self.children(parent, kind))
        parent.send_signal(signal.SIGHUP)
        assert wait_for(lambda: len(new := set(self.children(parent, kind))) >= len(old) and not new & old, 30), old

    def add_jobs(self, kind, n=1, args="{}", team=PLATFORM, queue="fast", priority=50, lock=None, ring=True, unique=None, delay=0):
        """As an enqueuing process: rows in one transaction, then the bell."""
        lock_sql = "NULL" if lock is None else "'%s'" % lock
        unique_sql = "NULL" if unique is None else "'%s'" % unique
        ids = self.sql("SELECT (job_insert(gen_random_uuid(), '%s', '%s', %d, '%s', 'system', NULL, NULL, 'test-request', NULL, "
                       "'%s', %s, %s, %s, now() + interval '10 minutes', true, NULL, 30)).id FROM generate_series(1, %d)"
                       % (kind, queue, priority, team, args, unique_sql, lock_sql,
                          "now() + interval '%f seconds'" % delay if delay else "NULL", n)).split("\n")
        if ring and self.redis:
            push = "RPUSH" if priority <= 10 else "LPUSH"
            for i in range(0, len(ids), 500):
                self.redis_cli(push, "hutch:q:" + queue, *[wire("job-", j) for j in ids[i:i + 500]])
        return ids

    def states(self, ids):
        out = {}
        for state, n in self.rows("SELECT state, count(*) FROM jobs WHERE id = ANY('{%s}') GROUP BY 1" % ",".join(ids)):
            out[state] = int(n)
        return out

    def all_in(self, ids, state, seconds):
        return wait_for(lambda: self.states(ids) == {state: len(ids)}, seconds, 0.1)


class Report:
    """ok and not ok lines, and the last one."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good, why=""):
        if good:
            self.passed += 1
            print("ok " + name, flush=True)
        else:
            self.failed += 1
            print("not ok %s: %s" % (name, why), flush=True)
        return good

    def end(self):
        print("%d passed, %d failed, 0 skipped" % (self.passed, self.failed))
        sys.exit(1 if self.failed else 0)
