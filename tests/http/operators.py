#!/usr/bin/env python3
"""operators.py - capsules and hosts as the platform's people, a BYOC team's and others see them; last snapshots that fail (spec 02 §2.1, §2.3, §5.1).

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB. Most capsules here are rows on a host whose agent is this program.
"""
import os
import shutil
import sys
import tempfile
import time
import uuid

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, HERE + "/../jobs"]
from crew import RUN, Person, call, check, end, sql, uuid_of, with_key  # noqa: E402
from fakeagent import Agent  # noqa: E402

NEVER = "0000000000000000000000001"
HOST_WAYS = ("", "/tags", "/capsules", "/delete-preview", "/metrics", "/logs")
made = {"capsules": [], "hosts": [], "teams": []}


def wire(prefix, u):
    n, text = int(u.replace("-", ""), 16), ""
    for _ in range(25):
        n, d = divmod(n, 36)
        text = "0123456789abcdefghijklmnopqrstuvwxyz"[d] + text
    return prefix + text


def row(table, prefix, statement):
    u = str(uuid.uuid4())
    sql(statement.replace("$ID", u))
    made[table].append(u)
    return wire(prefix, u)


def host(team=None, address="unix:/nowhere"):
    return row("hosts", "host-", "INSERT INTO hosts (id, name, type, team_id, address, status, schedulable, agent_version) VALUES "
               f"('$ID', 'o{RUN}', '{'byoc' if team else 'regular'}', {team or 'NULL'}, '{address}', 'online', false, '9.8.7')")


def capsule(person, on, state="running", tags=""):
    return row("capsules", "cl-", "INSERT INTO capsules (id, team_id, owner_id, template_id, template_name, template_version, host_id, desired_state, "
               f"observed_state, vcpus, memory_mb, disk_size_mb, tags) SELECT '$ID', '{uuid_of(person.team)}', '{uuid_of(person.id)}', id, name, "
               f"current_version, {on}, '{state}', '{state}', 1, 512, 5120, '{{{tags}}}' FROM templates WHERE name = 'minimal' LIMIT 1")


def quoted(text):
    return f"'{uuid_of(text)}'"


def until(what, seconds=200):
    """As soon as it is true; or what it says at last."""
    limit = time.monotonic() + seconds
    while not (said := what()) and time.monotonic() < limit:
        time.sleep(0.2)
    return said


def ids(answer):
    return [c["id"] for c in answer.json] if answer.status == 200 else answer


# ---- hosts of a deleted team

def orphaned_hosts():
    team = row("teams", "team-", f"INSERT INTO teams (id, name, slug, is_byoc, deleted_at) VALUES ('$ID', 'gone', '{RUN[-12:-6].zfill(6)}-{RUN[-6:]}', true, now())")
    gone, alive = host(quoted(team)), host()
    for way in HOST_WAYS:
        a, b = operator("GET", f"/v1/hosts/{gone}{way}"), operator("GET", f"/v1/hosts/host-{NEVER}{way}")
        check(f"a deleted team's host …{way}: to an operator as one that is not", a.status == 404 and a.bare() == b.bare(), (a, b))
    for way in HOST_WAYS[:4]:
        a = root("GET", f"/v1/hosts/{gone}{way}")
        check(f"a deleted team's host …{way}: to an administrator of the platform", a.status == 200, a)
    a, b = operator("GET", f"/v1/hosts?team={team}"), root("GET", f"/v1/hosts?team={team}")
    check("… in lists, too", ids(a) == [] and ids(b) == [gone], (a, b))
    a = operator("GET", f"/v1/hosts/{alive}")
    check("other hosts are the operator's to see", a.status == 200 and a.json["id"] == alive, a)
    a = operator("PATCH", f"/v1/hosts/{alive}", {"schedulable": False})
    check("and to cordon", a.status == 200 and a.json["schedulable"] is False, a)
    a = operator("PATCH", f"/v1/hosts/{alive}", {"schedulable": True, "weight": 2})
    b = operator("GET", f"/v1/hosts/{alive}").json
    check("but no more", a.status == 403 and "weight" in a.json["error"]["message"] and b["schedulable"] is False and b["weight"] == 1, (a, b))
    check("and to take back", operator("PATCH", f"/v1/hosts/{alive}", {"schedulable": True}).status == 200)
    check("nor to remove", operator("DELETE", f"/v1/hosts/{alive}").status in (403, 404))
    check("and to drain", operator("POST", f"/v1/hosts/{alive}/drain", {"deadline_sec": 1}).status in (202, 409))


# ---- the object

def whose_host():
    common, own = host(), host(quoted(bob.team))
    a, b, asleep = capsule(alice, quoted(common)), capsule(bob, quoted(own)), capsule(alice, "NULL", "hibernated")
    seen = alice("GET", "/v1/capsules/" + a)
    check("host_id: not for who has it on the platform's host", seen.status == 200 and "host_id" not in seen.json, seen)
    check("… in lists, too", all("host_id" not in c for c in alice("GET", "/v1/capsules").json))
    check("metadata.agent_version is its host's", seen.json["metadata"].get("agent_version") == "9.8.7", seen)
    seen = alice("GET", "/v1/capsules/" + asleep)
    check("… and absent where it is on none", seen.status == 200 and "agent_version" not in seen.json["metadata"], seen)
    seen = bob("GET", "/v1/capsules/" + b)
    check("host_id: for the team whose own the host is", seen.json.get("host_id") == own, seen)
    seen = with_key(bob_key, "GET", "/v1/capsules")
    check("… with a key, in a list", [c.get("host_id") for c in seen.json] == [own], seen)
    for c, h in ((a, common), (b, own)):
        seen = operator("GET", "/v1/admin/capsules/" + c)
        check("host_id: for an operator", seen.status == 200 and seen.json.get("host_id") == h, seen)
    for name in ("kernel_version", "vmm_version", "agent_version", "envd_version"):
        for method, path in (("POST", "/v1/capsules"), ("PATCH", f"/v1/capsules/{a}"), ("POST", f"/v1/capsules/{a}/fork")):
            said = alice(method, path, {"metadata": {name: "x"}})
            check(f"{method} …: metadata.{name} is reserved", said.status == 400 and name in said.json["error"]["message"], said)


# ---- any team's capsules

def listed():
    on = quoted(host())
    one, two, over = capsule(alice, on, tags="a,b"), capsule(alice, on, "paused", "b"), capsule(alice, "NULL", "stopped")
    other = capsule(bob, on)
    team = f"/v1/admin/capsules?team={alice.team}"
    both = operator("GET", team)
    check("admin: a team's capsules, newest first, as the team has them", ids(both) == ids(alice("GET", "/v1/capsules")) and
          ids(both)[:2] == [two, one], both)
    check("admin: without stopped ones", over not in ids(both))
    check("admin: state", ids(operator("GET", team + "&state=stopped")) == [over])
    check("admin: tags", ids(operator("GET", team + "&tag=a&tag=b")) == [one])
    check("admin: owner", ids(operator("GET", team + "&owner=me")) == [] and one in ids(operator("GET", team + "&owner=" + alice.id)))
    first = operator("GET", team + "&limit=1&tag=b")
    check("admin: a page", ids(first) == [two] and "X-Next-Cursor" in first.headers, first.headers)
    check("admin: the next", ids(operator("GET", team + "&limit=1&tag=b&cursor=" + first.headers["X-Next-Cursor"])) == [one])
    everybody = ids(operator("GET", "/v1/admin/capsules?limit=200"))
    check("admin: of all teams", {one, two, other} <= set(everybody), everybody)
    check("admin: of a team that is not", ids(operator("GET", f"/v1/admin/capsules?team=team-{NEVER}")) == [])
    for query in ("team=5", "state=moon", "owner=5", "created_after=yesterday"):
        a = operator("GET", "/v1/admin/capsules?" + query)
        check(f"admin: {query}: refused", a.status == 400, a)
    for path in ("/v1/admin/capsules", f"/v1/admin/capsules/{one}"):
        a, b = alice("GET", path), with_key(bob_key, "GET", path)
        check("admin: not for others, not for keys", (a.status, a.code, b.status) == (403, "forbidden", 403), (a, b))
    a = alice("DELETE", f"/v1/admin/capsules/{other}")
    check("admin: nor to destroy", a.status == 403 and operator("GET", f"/v1/admin/capsules/{other}").json["state"] == "running", a)


def log_of(cid):
    return sql(f"SELECT actor_id || ' ' || scope || ' ' || action FROM audit_logs WHERE team_id = {quoted(alice.team)} AND resource_id = '{cid}' "
               "ORDER BY seq").split("\n")


def destroyed(agent):
    for who in (operator, root):
        cid = capsule(alice, quoted(host(address="unix:" + agent.path)))
        a = who("DELETE", "/v1/admin/capsules/" + cid)
        check("admin: destroy: 204", a.status == 204, a)
        state = until(lambda c=cid: alice("GET", "/v1/capsules/" + c).json["state"] == "stopped")
        check("admin: destroy: it is stopped, to its team, too", state, alice("GET", "/v1/capsules/" + cid))
        check("admin: destroy: the team's log says who did it", log_of(cid) == [f"{who.id} team destroy"], log_of(cid))
        n = sql(f"SELECT count(*) FROM events WHERE team_id = {quoted(alice.team)} AND resource_id = '{cid}' AND type = 'capsule.destroyed'")
        check("admin: destroy: one event of the team's", n == "1", n)
        a = who("DELETE", "/v1/admin/capsules/" + cid)
        check("admin: destroy, again: 204 and no row", a.status == 204 and len(log_of(cid)) == 1, (a, log_of(cid)))
    for method in ("GET", "DELETE"):
        a = operator(method, f"/v1/admin/capsules/cl-{NEVER}")
        check(f"admin: {method} of none: 404", a.status == 404 and a.code == "not_found", a)


# ---- the last snapshot

def as_it_was(cid, name, why):
    c = alice("GET", "/v1/capsules/" + cid).json
    check(f"last snapshot, {why}: the capsule runs on", (c["state"], c["desired_state"], c.get("op")) == ("running", "running", None), c)
    shots = [s for s in alice("GET", f"/v1/capsules/{cid}/snapshots").json if s["name"] == name]
    check(f"last snapshot, {why}: the snapshot says that it failed", [(s["state"], s["kind"]) for s in shots] == [("failed", "last")], shots)
    rows = [r for r in log_of(cid) if r.endswith("destroy")]
    check(f"last snapshot, {why}: nobody destroyed it", rows == [], rows)


def last_fails(agent):
    cid = capsule(alice, quoted(host(address="unix:" + agent.path)))
    path = "/v1/capsules/" + cid
    for why, refusal, status, code in (("no room", (507, "out_of_space"), 507, "out_of_space"), ("refused", (500, "internal"), 502, "agent_error"),
                                       ("an empty answer", None, 502, "agent_error")):
        agent.refusal, name = refusal, "last-" + why.split()[-1]
        a = alice("DELETE", f"{path}?snapshot={name}")
        check(f"last snapshot, {why}: {status} {code}", (a.status, a.status >= 400 and a.code) == (status, code), a)
        as_it_was(cid, name, why)
    agent.silent = True
    a = alice("DELETE", f"{path}?snapshot=later&wait=0")
    check("last snapshot, the host is silent: 202", a.status == 202, a)
    c = alice("GET", path).json
    check("… and it runs while the snapshot is under way", (c["state"], c.get("op")) == ("running", "snapshot"), c)
    a = alice("DELETE", f"{path}?snapshot=another")
    check("… a second one: 409", a.status == 409 and a.code == "conflict" and "snapshot" in a.json["error"]["message"], a)
    agent.refusal, agent.silent = (507, "out_of_space"), False
    until(lambda: not alice("GET", path).json.get("op"))
    as_it_was(cid, "later", "after 202")
    agent.refusal = None
    a = alice("DELETE", path)
    check("… and without one it goes", a.status == 204 and until(lambda: alice("GET", path).json["state"] == "stopped"), a)


def last_is_taken():
    """A real one: 202 says that it is under way; where it was faster, 204."""
    c = alice("POST", "/v1/capsules?wait=55", {"memory_mb": 256}).json
    path = "/v1/capsules/" + c["id"]
    check("a capsule runs", until(lambda: alice("GET", path).json["state"] == "running"), c)
    a = alice("DELETE", f"{path}?snapshot=end&wait=0")
    check("last snapshot, not waited for: accepted", a.status in (202, 204), a)
    check("… the capsule goes", until(lambda: alice("GET", path).json["state"] == "stopped"), alice("GET", path))
    shots = alice("GET", path + "/snapshots").json
    check("… and its snapshot is ready", [(s["name"], s["kind"], s["state"]) for s in shots] == [("end", "last", "ready")], shots)
    for s in shots:
        alice("DELETE", "/v1/snapshots/" + s["id"])


def tidy():
    for table in ("capsules", "hosts"):
        for u in made[table]:
            what = "DELETE FROM capsules" if table == "capsules" else "UPDATE hosts SET deleted_at = now()"
            sql(f"{what} WHERE id = '{u}'")
    sql(f"UPDATE users SET platform_role = 'user' WHERE id IN ({quoted(operator.id)}, {quoted(root.id)})")


operator, root, alice, bob = Person("operator"), Person("root"), Person("alice"), Person("bob")
for who, role in ((operator, "operator"), (root, "admin")):
    sql(f"UPDATE users SET platform_role = '{role}' WHERE id = {quoted(who.id)}")
sql(f"UPDATE teams SET is_byoc = true WHERE id = {quoted(bob.team)}")
key = call("POST", "/v1/api-keys", {"name": "k"}, {"Authorization": f"Bearer {bob.token}"})
bob_key = key.json["key"]
folder = tempfile.mkdtemp(prefix="hutch-operators-")
os.chmod(folder, 0o755)
try:
    there = Agent(folder)
    orphaned_hosts()
    whose_host()
    listed()
    destroyed(there)
    last_fails(there)
    last_is_taken()
finally:
    tidy()
    shutil.rmtree(folder, ignore_errors=True)
end()
