#!/usr/bin/env python3
"""pool.py - the FastCGI pool under load: reload and recycling lose no request, a killed process only its own.

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_API_KEY, HUTCH_RUN.
"""
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

URL = urlsplit(os.environ["HUTCH_URL"])
KEY = os.environ["HUTCH_API_KEY"]
RUN = os.environ["HUTCH_RUN"]
passed = failed = 0


def check(name, good, why=""):
    global passed, failed
    if good:
        passed += 1
        print(f"ok {name}", flush=True)
    else:
        failed += 1
        print(f"not ok {name}: {why}", flush=True)


def master():
    with open(f"{RUN}/pid/api", encoding="ascii") as f:
        return int(f.read().split()[0])


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just been recycled


def named(pid, name):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            return name in f.read()
    except OSError:
        return False


def children(pid):
    out = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
            out += [int(p) for p in f.read().split()]
    return out


class Load:
    """Some clients that ask one after the other until told to stop; statuses are counted."""

    def __init__(self, n=6):
        self.stop = False
        self.seen = {}
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.client) for _ in range(n)]
        for t in self.threads:
            t.start()

    def one(self, c):
        c.request("GET", "/v1/api-keys?limit=1", headers={"X-API-Key": KEY, "Connection": "keep-alive"})
        a = c.getresponse()
        a.read()
        # keys may not list keys: 403 is the whole way through dispatch and database, without a row
        return a.status

    def client(self):
        c = http.client.HTTPConnection(URL.hostname, URL.port, timeout=90)
        while not self.stop:
            try:
                status = self.one(c)
            except (OSError, http.client.HTTPException) as e:
                status = type(e).__name__
                c = http.client.HTTPConnection(URL.hostname, URL.port, timeout=90)
            with self.lock:
                self.seen[status] = self.seen.get(status, 0) + 1

    def answered(self, n):
        """Waits for so many answers."""
        end = time.monotonic() + 60
        while sum(self.seen.values()) < n and time.monotonic() < end:
            time.sleep(0.1)

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()
        return self.seen


def bad(seen):
    return {k: v for k, v in seen.items() if k not in (403, 429)}


def wait_children(pid, n, old=()):
    for _ in range(600):
        now = children(pid)
        if len(now) == n and not set(now) & set(old):
            return now
        time.sleep(0.1)
    return children(pid)


def reloads():
    pid = master()
    before = children(pid)
    load = Load()
    for _ in range(3):
        time.sleep(1)
        os.kill(pid, signal.SIGHUP)
    time.sleep(2)
    load.answered(31)
    seen = load.end()
    check("three reloads under load: no request failed", not bad(seen) and sum(seen.values()) > 30, f"{seen}")
    after = wait_children(pid, len(before), before)
    check("after the reload all processes are new", not set(after) & set(before) and len(after) == len(before),
          f"{len(before)} before, {len(after)} after")


def kills():
    pid = master()
    before = children(pid)
    load = Load()
    for victim in before[:3]:
        time.sleep(0.5)
        kill(victim)
    time.sleep(1)
    seen = load.end()
    lost = sum(bad(seen).values())
    check("three killed processes: at most their own requests are lost", lost <= 3, f"{seen}")
    after = wait_children(pid, len(before), before[:3])
    check("killed processes are replaced", len(after) == len(before), f"{len(before)} before, {len(after)} after")


CONF = os.environ.get("HUTCH_CONF", f"{RUN}/hutch.conf")


def own_pool(conf, log=subprocess.DEVNULL):
    """A pool that serves nobody: four processes."""
    return subprocess.Popen([os.readlink(f"/proc/{master()}/exe"), "-c", conf, "-m", "4", "-p", "api", "--listen", f"{RUN}/sock/orphan.sock"],
                            stdin=subprocess.DEVNULL, stderr=log)


def bad_configuration():
    """Of a pool of its own: others read the instance's configuration at any time."""
    path, log = f"{RUN}/pool-test.conf", f"{RUN}/pool-test.log"
    shutil.copyfile(CONF, path)
    with open(log, "wb") as f:
        pool = own_pool(path, f)
    try:
        before = sorted(wait_children(pool.pid, 4))
        time.sleep(2)
        with open(path, "a", encoding="utf-8") as f:
            f.write("\nhttp { bdoy_max_kb = 1 }\n")
        os.kill(pool.pid, signal.SIGHUP)
        said = ""
        for _ in range(600):
            with open(log, encoding="utf-8") as f:
                said = f.read()
            if "bdoy_max_kb" in said and sorted(children(pool.pid)) == before:  # one more is who has read it
                break
            time.sleep(0.1)
        time.sleep(1)
        check("a reload with a bad configuration changes nothing", len(before) == 4 and sorted(children(pool.pid)) == before,
              f"{before} before, {children(pool.pid)} after")
        check("and says what is wrong", "bdoy_max_kb" in said, said[-300:])
    finally:
        pool.terminate()
        pool.wait()
        os.unlink(path)
        os.unlink(log)


def orphans():
    """A pool of its own, whose master dies without a word: nobody stays behind, whether idle or in a start."""
    for name, wait in (("just started", 0), ("at work", 4)):
        pool = own_pool(CONF)
        end = time.monotonic() + 60
        while not children(pool.pid) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(wait)
        kids = children(pool.pid)
        pool.kill()
        pool.wait()
        end = time.monotonic() + 60
        left = kids
        while left and time.monotonic() < end:
            time.sleep(0.1)
            left = [p for p in kids if named(p, "hutch-api")]
        check(f"a killed master leaves no process behind, {name}", kids and not left, f"{kids}, left {left}")
        for pid in left:
            kill(pid)


reloads()
kills()
orphans()
bad_configuration()
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(1 if failed else 0)
