"""reads - GET of one row with key and token, against pgbench and against fastify + pg; and pages of a long list."""
import base64
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import time

from instance import PG, TOP, Cpu, sh
from table import Samples, add, show, split

SERVERS = ("lighttpd", "api", "postgres", "redis")
UNITS = {"us": 0.001, "ms": 1, "s": 1000}


def wrk(url, header, seconds, connections=32):
    """Requests a second, how many, latencies in ms. Any answer but 200 is an error."""
    out = sh("wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "--latency", "-H", header, url)
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError("%s: %s" % (url, out))

    def latency(share):
        value, unit = re.search(share + r"%\s+([\d.]+)(us|ms|s)\b", out).groups()
        return float(value) * UNITS[unit]

    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "n": int(re.search(r"(\d+) requests in", out).group(1)), "p50": latency("50"), "p99": latency("99")}


def pgbench(inst, seconds):
    """The same machine's reads of one row without a web tier."""
    out = sh(PG + "/pgbench", "-h", inst.sock, "-U", "hutch_super", "-S", "-M", "prepared", "-c8", "-j1", "-n",
             "-T%d" % seconds, "bench", stderr=subprocess.DEVNULL)
    return {"rate": float(re.search(r"tps = ([\d.]+)", out).group(1)),
            "n": int(re.search(r"actually processed: (\d+)", out).group(1)),
            "p50": float(re.search(r"latency average = ([\d.]+)", out).group(1)), "p99": None}


def prepare_pgbench(inst):
    if inst.sql("SELECT count(*) FROM pg_database WHERE datname = 'bench'", "postgres") == "0":
        inst.sql("CREATE DATABASE bench", "postgres")
        sh(PG + "/pgbench", "-h", inst.sock, "-U", "hutch_super", "-i", "-q", "-s", "10", "bench", stderr=subprocess.DEVNULL)


class Fastify:
    """The comparison server; `proc` is None when npm can't fetch it."""

    def __init__(self, inst):
        self.proc, self.port, self.secret = None, inst.port + 500, os.urandom(32)
        folder = inst.run + "/node"
        shutil.copytree(TOP + "/tests/bench/node", folder, dirs_exist_ok=True)
        if not os.path.isdir(folder + "/node_modules") and subprocess.run(
                ["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=False).returncode:
            print("# fastify: npm ci failed, no comparison")
            return
        self.proc = subprocess.Popen(["node", "server.js"], cwd=folder, env=dict(
            os.environ, PGHOST=inst.sock, PORT=str(self.port), JWT_KEY=self.secret.hex(), NODE_ENV="production"))
        time.sleep(2)

    def token(self, ours):
        """Our token's claims, signed with its key."""
        text = ours.rsplit(".", 1)[0]
        mac = hmac.new(self.secret, text.encode(), hashlib.sha256).digest()
        return text + "." + base64.urlsafe_b64encode(mac).decode().rstrip("=")

    def stop(self):
        if self.proc:
            self.proc.terminate()
            self.proc.wait()


def key_id(inst, token):
    """The id of the first key."""
    keys = inst.call("GET", "/v1/api-keys", token=token)[1]
    return next(k["id"] for k in keys if k["name"] == "quickstart")


def cases(inst, fastify, capsule):
    """(name, function of seconds, function that tells its processes), in the order of a round."""
    key, token = "X-API-Key: " + inst.key, inst.token()
    bearer = "Authorization: Bearer "
    def mine():
        return {p: inst.pids(p) for p in SERVERS}

    def others():
        return {"node": [fastify.proc.pid], "postgres": inst.pids("postgres")}

    url = "http://127.0.0.1:%d/v1/" % inst.port
    found = [("pgbench -S -M prepared -c8", lambda s: pgbench(inst, s), None)]
    for path, name, header in (("capsules/" + capsule, "API key", key), ("capsules/" + capsule, "JWT", bearer + token),
                               ("api-keys/" + key_id(inst, token), "JWT", bearer + token)):
        found.append(("%s/{id}, %s" % (path.split("/", maxsplit=1)[0], name),
                      lambda s, path=path, header=header: wrk(url + path, header, s), mine))
    if fastify.proc:
        other = "http://127.0.0.1:%d/v1/capsules/%s" % (fastify.port, capsule)
        for name, header in (("API key", key), ("JWT", bearer + fastify.token(token))):
            found.append(("fastify + pg, capsules/{id}, " + name, lambda s, header=header: wrk(other, header, s), others))
    return found


def one_row(inst, args):
    """All cases in turn, round after round."""
    prepare_pgbench(inst)
    capsule, fastify = inst.capsule(), Fastify(inst)
    try:
        rows = measure(cases(inst, fastify, capsule), args)
    finally:
        fastify.stop()
        inst.destroy(capsule)
    base = Samples(g["rate"] for g in rows[0]["got"]).median
    show("GET of one row, 32 connections, %d rounds of %d s" % (args.rounds, args.seconds),
         ["", "n", "/s", "of pgbench", "p50 ms", "p99 ms", "CPU us", "of it"],
         [[r["name"], sum(g["n"] for g in r["got"]), *rates(r["got"], base), *split(r["cpu"])] for r in rows])


def rates(got, base):
    rate = Samples(g["rate"] for g in got).median
    p99 = None if got[0]["p99"] is None else Samples(g["p99"] for g in got).median
    return [rate, "%.3f" % (rate / base), Samples(g["p50"] for g in got).median, p99]


def measure(found, args):
    rows = [{"name": name, "got": [], "cpu": {}} for name, _, _ in found]
    for turn in range(args.rounds + 1):
        for row, (_, play, groups) in zip(rows, found):
            spent = Cpu(groups() if groups else {})
            got = play(args.seconds if turn else 1)
            if turn:  # the first round warms connections and plans
                row["got"].append(got)
                add(row["cpu"], spent.spent(got["n"], groups() if groups else {}))
    return rows


# --- pages -------------------------------------------------------------------------------------

MANY = "many@hutch.localhost"

FILL = """INSERT INTO capsules (id, team_id, template_id, template_name, template_version, desired_state, observed_state,
	vcpus, memory_mb, disk_size_mb, created_at)
SELECT gen_random_uuid(), k.team_id, t.id, t.name, 1, 'hibernated', 'hibernated', 1, 512, 5120, now() - n * interval '1 second'
  FROM generate_series(1, %d) n, (SELECT k.team_id FROM api_keys k JOIN users u ON u.id = k.created_by
	WHERE u.email = '%s' LIMIT 1) k, (SELECT * FROM templates LIMIT 1) t;
ANALYZE capsules;"""


def fill(inst, number):
    """A team of its own with so many sleeping capsules; its key."""
    path = inst.run + "/secret/many.key"
    if not os.path.exists(path):
        began = time.monotonic()
        inst.ctl("admin", "create", "--email", MANY, "--name", "Many", "--password-file", inst.run + "/secret/admin.password")
        key = inst.ctl("key", "create", "--email", MANY, "--name", "many").strip()
        inst.sql(FILL % (number, MANY))
        inst.sql("VACUUM capsules")
        with open(path, "w", encoding="ascii") as f:
            f.write(key)
        print("# %d rows in %.0f s" % (number, time.monotonic() - began))
    with open(path, encoding="ascii") as f:
        return f.read()


def last_page(inst, key):
    """The path of the last 100, by the cursors; and how many rows there were."""
    seen, cursor, before = 0, "", None
    while True:
        status, rows, head = inst.call("GET", "/v1/capsules?limit=100" + cursor, key=key)
        if status != 200:
            raise RuntimeError("list: %s %s" % (status, rows))
        seen += len(rows)
        if "X-Next-Cursor" not in head:
            return before, seen
        before = cursor = "&cursor=" + head["X-Next-Cursor"]


def pages(inst, args):
    """First page against last page."""
    key = fill(inst, args.rows)
    began = time.monotonic()
    cursor, seen = last_page(inst, key)
    walked = time.monotonic() - began
    url = "http://127.0.0.1:%d/v1/capsules?limit=100" % inst.port

    def mine():
        return {p: inst.pids(p) for p in SERVERS}

    rows = measure([
        (name, lambda s, path=path: wrk(url + path, "X-API-Key: " + key, s, 8), mine)
        for name, path in (("first page", ""), ("last page", cursor))], args)
    base = Samples(g["rate"] for g in rows[0]["got"]).median
    show("A page of 100 out of %d rows, 8 connections (the walk over all: %.0f s)" % (seen, walked),
         ["", "n", "/s", "of first", "p50 ms", "p99 ms", "CPU us", "of it"],
         [[r["name"], sum(g["n"] for g in r["got"]), *rates(r["got"], base), *split(r["cpu"])] for r in rows])
