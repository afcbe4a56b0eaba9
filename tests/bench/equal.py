#!/usr/bin/env python3
"""equal.py - does the time of an answer tell whether an address has an account? (spec 01 row 8)

usage: equal.py [N]: N requests of each kind (default 500), in turn, one at a time. Prints medians and Welch's t against
an account with a wrong password; |t| below 4.5 tells nothing. The password hash has the cost of the default settings
unless COST is set. Wants an idle machine.
"""
import math
import os
import random
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../http"))
from people_house import House  # noqa: E402

N = int(sys.argv[1]) if len(sys.argv) > 1 else 500
h = House(processes=2, auth={"hash_cost": int(os.environ.get("COST", "7")), "account_failures": 1000, "account_failures_month": 100000,
                             "address_failures": 100000})


def account(name, change=""):
    h.person(name + "@x.example")
    if change:
        h.one("UPDATE users SET %s WHERE email = '%s@x.example'" % (change, name))
    return name + "@x.example"


def welch(a, b):
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    return (statistics.mean(a) - statistics.mean(b)) / math.sqrt(va + vb)


def measure(title, base, kinds, call):
    times = {k: [] for k in kinds}
    for i in range(N):
        for k in random.sample(list(kinds), len(kinds)):
            if i % 50 == 0:
                h.one("DELETE FROM auth_throttle")
            start = time.perf_counter()
            call(kinds[k](i))
            times[k].append((time.perf_counter() - start) * 1000)
    for k, t in times.items():
        t = sorted(t)[:int(N * 0.95)]  # what the machine did beside
        print("%-8s %-18s median %7.2f ms   t %6.2f" % (title, k, statistics.median(t), welch(t, sorted(times[base])[:int(N * 0.95)])), flush=True)


known, empty = account("known"), account("empty", "password_hash = NULL")
gone = account("gone", "status = 'deleted', deleted_at = now(), purge_after = now() + interval '15 days'")
print("%d requests of each kind, yescrypt cost %s" % (N, os.environ.get("COST", "7")))
measure("login", "wrong", {"wrong": lambda i: known, "unknown": lambda i: "nobody@x.example", "no password": lambda i: empty,
                           "deleted": lambda i: gone}, lambda who: h.login(who, "wrong wrong wrong"))
measure("reset", "known", {"known": lambda i: known, "unknown": lambda i: "u%d@x.example" % i},
        lambda who: h.call("POST", "/v1/me/password/reset", {"email": who}))
measure("signup", "known", {"known": lambda i: known, "new": lambda i: "n%d@x.example" % i}, h.signup)
