#!/usr/bin/env python3
"""life3_test.py - snapshots by the clock, last snapshots, disks that grow, on a running instance (spec 02 §2.3, §2.4).

usage: life3_test.py [PART...]   (the instance is named by the environment, as for tests/http/run)
The clock is not waited for: a policy's next time is set to now.
"""
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True
from life2_test import STATE, events, held, one, post, unwire, wait
from life_test import FAILED, call, check, create, sh, sql, until

NOW = "UPDATE snapshot_policies SET next_at = now() - interval '1 s' WHERE capsule_id = '%s'"


def taken(cid, state="ready"):
    return [s for s in call("GET", "/v1/capsules/%s/snapshots?kind=scheduled" % cid)[1] if s["state"] == state]


def by_the_clock():
    cid = create()["id"]
    path, u = "/v1/capsules/%s/snapshot-policy" % cid, unwire(cid)
    status, p = call("GET", path)
    check("policy: none at first", status == 200 and p == {"cron": None, "keep_last": 10, "keep_days": 30, "memory": True,
                                                           "next_at": None, "last_error": None}, (status, p))
    for cron in ("", "* * * *", "60 * * * *", "* * 31 2 *", "* * * * * *", "*/0 * * * *", "5-1 * * * *", "a b c d e"):
        status, p = call("PUT", path, {"cron": cron})
        check("policy: %r is refused" % cron, status == 400 and "cron" in p["error"]["message"], (status, p))
    # hours that are far from now: the clock itself takes none meanwhile
    hours = sorted((time.gmtime().tm_hour + n) % 24 for n in (10, 12))
    cron = "*/15 %d,%d * * 1-5" % tuple(hours)
    status, p = call("PUT", path, {"cron": cron, "keep_last": 2, "memory": False})
    check("policy: set", status == 200 and p["cron"] == cron and int(p["next_at"][11:13]) in hours, (status, p))
    sh(cid, "echo one >/root/x; sync")
    for n in (1, 2, 2):
        before = [s["id"] for s in taken(cid)]
        sql(NOW % u)
        if not check("policy: taken, %d are kept" % n, wait(lambda: sql(
                "SELECT next_at > now() FROM snapshot_policies WHERE capsule_id = '%s'" % u) == "t" and len(taken(cid)) == n
                and taken(cid)[0]["id"] not in before)):
            break
    status, p = call("GET", path)
    check("policy: no error", p["last_error"] is None, p)
    post(cid, "hibernate")
    until(cid, "hibernated")
    newest = taken(cid)[0]["id"]
    sql(NOW % u)
    got = wait(lambda: [s for s in taken(cid)[:1] if s["id"] != newest])
    check("policy: of a sleeping one its image is the snapshot", got and got[0]["state"] == "ready", got)
    status, c = post(cid, "resume")
    until(cid, "running")

    def skipped():
        """Its host says again and again that it runs, which ends the state; so it is set until the clock was faster."""
        got = events(cid, "snapshot.skipped")
        if not got:  # both or none: while a snapshot is taken, the clock would find it busy
            sql("WITH c AS (UPDATE capsules SET observed_state = 'missing', missing_from = 'running' WHERE id = '%s' AND op IS NULL RETURNING id) "
                "UPDATE snapshot_policies p SET next_at = now() - interval '1 s' FROM c WHERE p.capsule_id = c.id" % u)
        return got

    got = wait(skipped, 120, 1)
    check("policy: what cannot be taken is an event", got and got[0]["code"] == "missing" and got[0]["kind"] == "scheduled", got)
    until(cid, "running")
    status, p = call("PUT", path, {"cron": None})
    check("policy: off", status == 200 and p["cron"] is None and p["next_at"] is None, (status, p))
    n = sql("SELECT string_agg(DISTINCT action || ' ' || actor_type, ',' ORDER BY action || ' ' || actor_type) FROM audit_logs "
            "WHERE resource_type = 'snapshot' AND metadata->>'cause' = 'policy'")
    check("policy: audited, by the system", n == "create system,delete system", n)
    call("DELETE", "/v1/capsules/" + cid)


def the_last_one():
    """DELETE ?snapshot=: the snapshot is ready before the capsule goes, and what was in it can be had again."""
    cid = create()["id"]
    sh(cid, "echo kept > /root/word")
    n = lambda text: call(*text.split())[0]  # noqa: E731
    check("last: a bad name", n(f"DELETE /v1/capsules/{cid}?snapshot=%2F") == 400)
    status, _ = call("DELETE", f"/v1/capsules/{cid}?snapshot=final")
    status, c = (status, call("GET", f"/v1/capsules/{cid}")[1])
    check("last: 204, and it goes", status == 204 and c["status"] == "stopped", (status, c))
    status, all_ = call("GET", f"/v1/capsules/{cid}/snapshots")
    s = all_[0] if all_ else {}
    check("last: the snapshot", len(all_) == 1 and (s["name"], s["kind"], s["state"], s["memory"]) == ("final", "last", "ready", True), all_)
    check("last: again", n(f"DELETE /v1/capsules/{cid}?snapshot=final") == 204 and len(call("GET", f"/v1/capsules/{cid}/snapshots")[1]) == 1)
    status, again = call("POST", f"/v1/snapshots/{s['id']}/restore", {})
    check("last: restored", status == 201 and until(again["id"], "running") and sh(again["id"], "cat /root/word")[1]["stdout"] == "kept\n", (status, again))
    # one that sleeps without a host: its image is the snapshot
    check("last: hibernated", call("POST", f"/v1/capsules/{again['id']}/hibernate")[0] in (200, 202))
    wait(lambda: call("GET", f"/v1/capsules/{again['id']}")[1]["state"] == "hibernated")
    check("last: of a sleeping one", n(f"DELETE /v1/capsules/{again['id']}?snapshot=image") == 204)
    status, all_ = call("GET", f"/v1/capsules/{again['id']}/snapshots")
    check("last: its image is kept, and its size told", [(x["name"], x["state"]) for x in all_] == [("image", "ready")]
          and all_[0]["bytes_logical"] > all_[0]["bytes_unique"] > 1000000, all_)
    check("last: gone", call("GET", f"/v1/capsules/{again['id']}")[1]["status"] == "stopped")


def a_disk_grows():
    """At once in a running one; when it wakes, in one that sleeps; whatever became of it in between."""
    cid = create()["id"]
    path = "/v1/capsules/" + cid
    sh(cid, "echo kept > /root/word")

    def has(what, mb, who=cid):
        got = wait(lambda: sh(who, "df -m / | tail -1 | awk '{print ($2 > %d)}'; cat /root/word" % (mb - 500))[1].get("stdout") == "1\nkept\n")
        c = call("GET", "/v1/capsules/" + who)[1]
        check("disk: " + what, got and (c["disk_size_mb"], c["warnings"]) == (mb, []), (c, sh(who, "df -m /")))

    def grow(mb):
        status, c = call("PATCH", path, {"disk_size_mb": mb})
        check("disk: %d MiB are promised" % mb, status == 200 and (c["disk_size_mb"], c["warnings"]) == (mb, []), (status, c))

    grow(6144)
    has("it grows below a running guest", 6144)
    status, s = post(cid, "snapshots")
    check("disk: a snapshot of it", status == 201 and s["state"] == "ready", (status, s))
    grow(7168)
    has("and again", 7168)
    status, c = post(cid, "rollback", {"snapshot": s["id"]})
    until(cid, "running")
    has("a rollback to a smaller one keeps the size", 7168)
    post(cid, "pause")
    until(cid, "paused")
    grow(8192)
    post(cid, "resume")
    until(cid, "running")
    has("a paused one has it when it wakes", 8192)
    post(cid, "hibernate")
    until(cid, "hibernated")
    grow(9216)
    post(cid, "resume")
    until(cid, "running")
    has("a hibernated one, too", 9216)
    status, kids = post(cid, "fork", {"count": 1})
    kid = kids[0].get("capsule", {}).get("id") if status == 201 else None
    if check("disk: a fork", kid, (status, kids)):
        until(kid, "running")
        has("a fork of a grown one", 9216, kid)
        call("DELETE", "/v1/capsules/" + kid)
    # nobody told its host: the inventory shows it
    sql("UPDATE capsules SET disk_size_mb = 10240 WHERE id = '%s'" % unwire(cid))
    has("a promise that its host did not hear of", 10240)
    call("DELETE", path)


def without_room():
    """507 before anything changes (spec 02 §6.11). Its host is full: no other part may run meanwhile."""
    c = create()
    sql("UPDATE hosts SET reserve_disk_mb = reserve_disk_mb + 1000000000")
    try:
        status, e = call("PATCH", "/v1/capsules/" + c["id"], {"disk_size_mb": 6144, "name": "grown-in-vain"})
        now = call("GET", "/v1/capsules/" + c["id"])[1]
    finally:
        sql("UPDATE hosts SET reserve_disk_mb = reserve_disk_mb - 1000000000")
    check("disk: a host without room is 507", status == 507 and e["error"]["code"] == "out_of_space", (status, e))
    check("disk: nothing has changed", (now["disk_size_mb"], now["name"], now["generation"]) == (5120, c["name"], c["generation"]), now)
    call("DELETE", "/v1/capsules/" + c["id"])


def what_its_host_holds():
    """What a PATCH stored is what the host enforces, whatever the capsule was doing at that moment."""
    cid = create()["id"]
    path, u = "/v1/capsules/" + cid, unwire(cid)

    def host():
        got = held().get(cid, {})
        try:
            with open(STATE + "/network/" + cid, encoding="utf-8") as f:
                return got.get("timeout_sec"), json.load(f).get("allow"), got.get("state")
        except (OSError, ValueError):
            return got

    def holds(what, sec, allow):
        now = json.loads(sql("SELECT json_build_array(timeout_sec, network->'allow') FROM capsules WHERE id = '%s'" % u))
        check("host: the row, " + what, now == [sec, allow], now)
        check("host: " + what, wait(lambda: host()[:2] == (sec, allow)), (host(), sec, allow))

    for n, (verb, state) in enumerate((("pause", "paused"), ("resume", "running"), ("hibernate", "hibernated"), ("resume", "running"))):
        status, c = post(cid, verb, seconds=0)
        check("host: " + verb, status in (200, 202), (status, c))
        status, c = call("PATCH", path, {"timeout_sec": 5000 + n, "network": {"internet": False, "allow": ["n%d.example.org" % n]}})
        check("host: told while it goes on", status == 200 and c["timeout_sec"] == 5000 + n, (status, c))
        until(cid, state)
        if state != "hibernated":
            holds("after " + verb, 5000 + n, ["n%d.example.org" % n])
    for state in "running", "paused":
        sql("UPDATE capsules SET timeout_sec = 6000, network = '{\"internet\": false, \"allow\": [\"%s.example.org\"]}' WHERE id = '%s'"
            % (state, u))
        holds("nobody told it, %s" % state, 6000, [state + ".example.org"])
        if state == "running":
            post(cid, "pause")
            until(cid, "paused")
    check("host: it is as it was", host()[2:] == ("paused",) and call("GET", path)[1]["state"] == "paused", host())
    call("DELETE", path)


PARTS = (by_the_clock, the_last_one, a_disk_grows, what_its_host_holds)
ALONE = (without_room,)


def main():
    sql("UPDATE hosts SET overcommit_cpu = 16")
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(one, [p for p in PARTS if not sys.argv[1:] or p.__name__ in sys.argv[1:]]))
        for part in ALONE:
            if not sys.argv[1:] or part.__name__ in sys.argv[1:]:
                one(part)
    finally:
        sql("UPDATE hosts SET overcommit_cpu = NULL")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
