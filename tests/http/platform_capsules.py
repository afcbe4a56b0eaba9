#!/usr/bin/env python3
"""platform_capsules.py - capsules of the Platform's team: what its administrators make and use below /v1/admin, and nobody else (spec 02 §2.3).

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB. One real capsule; another team's is a row.
"""
import base64
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from crew import RUN, URL, Person, call, check, end, sql, uuid_of, with_key  # noqa: E402
from matrix_house import PLATFORM, wire  # noqa: E402
from sockets import Closed, Socket  # noqa: E402

BOUNDARY = "platform-boundary"
STREAMS = ("exec/stream", "processes/1/stream", "pty", "files/watch?path=/")


def until(what, seconds=200):
    """As soon as it is true; or what it says at last."""
    limit = time.monotonic() + seconds
    while not (said := what()) and time.monotonic() < limit:
        time.sleep(0.2)
    return said


def role(person, name):
    sql(f"UPDATE users SET platform_role = '{name}' WHERE id = '{uuid_of(person.id)}'")


def form(path, text):
    parts = "".join(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
                    for name, more, value in (("path", "", path), ("file", '; filename="f"', text)))
    return (parts + f"--{BOUNDARY}--\r\n").encode()


def upload(person, url, path, text):
    req = urllib.request.Request(URL + url, form(path, text), {"Authorization": f"Bearer {person.token}",
                                                               "Content-Type": "multipart/form-data; boundary=" + BOUNDARY}, method="POST")
    try:
        with urllib.request.urlopen(req, timeout=150) as a:
            return a.status
    except urllib.error.HTTPError as e:
        return e.code


# ---- one is made

def refused():
    for who, a in (("an owner", owner("POST", "/v1/admin/capsules", {})), ("an operator", operator("POST", "/v1/admin/capsules", {})),
                   ("an administrator's key", with_key(key, "POST", "/v1/admin/capsules", {}))):
        check(f"create: not by {who}", (a.status, a.code) == (403, "forbidden"), a)
    a = call("POST", "/v1/admin/capsules", {})
    check("create: not by nobody", a.status == 401, a)


def created():
    once = {"Idempotency_Key": "platform-" + RUN}
    body = {"memory_mb": 256, "name": "p" + RUN, "tags": ["t" + RUN], "envs": {"WHERE": "platform"}}
    a = root("POST", "/v1/admin/capsules?wait=50", body, **once)
    check("create: 201, of the Platform's team, its maker's", a.status == 201 and (a.json["team_id"], a.json["owner"]["id"]) == (PLATFORM, root.id), a)
    c = a.json["id"]
    a = root("POST", "/v1/admin/capsules?wait=50", body, **once)
    check("create, the same key: the same capsule", a.status == 201 and a.json["id"] == c, a)
    a = root("POST", "/v1/admin/capsules", {"name": "p" + RUN})
    check("create, the same name: 409", (a.status, a.code) == (409, "conflict"), a)
    a = root("POST", "/v1/admin/capsules", {"memory_mb": 64})
    check("create, bad input: 400", (a.status, a.code) == (400, "invalid_request"), a)
    check("it runs", until(lambda: operator("GET", f"/v1/admin/capsules/{c}").json["state"] == "running"), operator("GET", f"/v1/admin/capsules/{c}"))
    listed = [x["id"] for x in operator("GET", f"/v1/admin/capsules?team={PLATFORM}&tag=t{RUN}").json]
    check("it is in the list", listed == [c], listed)
    for who in (owner, root):
        a = who("GET", f"/v1/capsules/{c}")
        check("it is in no team of people", a.status == 404, a)
    return c


def log_of(c):
    return sql(f"SELECT resource_type || '/' || action || ' ' || actor_id || ' ' || scope FROM audit_logs WHERE team_id = '{uuid_of(PLATFORM)}' "
               f"AND resource_id = '{c}' ORDER BY seq").split("\n")


# ---- who uses it

def doors(c):
    """Of the Platform's only, by administrators only: whatever the route."""
    calls = [("POST", "exec", {"cmd": "true"}), ("POST", "files/list", {"path": "/"}), ("GET", "processes", None), ("GET", "metrics", None)]
    for method, below, body in calls:
        path = f"/v1/admin/capsules/{c}/{below}"
        for who, a in (("an owner", owner(method, path, body)), ("an operator", operator(method, path, body)),
                       ("an administrator's key", with_key(key, method, path, body))):
            check(f"{below}: not for {who}", (a.status, a.code) == (403, "forbidden"), a)
        for what, other in (("another team's", foreign), ("one's own team's", own)):
            a, never = root(method, f"/v1/admin/capsules/{other}/{below}", body), root(method, f"/v1/admin/capsules/{NEVER}/{below}", body)
            check(f"{below}: {what} is none here", a.status == 404 and a.bare() == never.bare(), (a, never))
        for who in (owner, root):
            a = who(method, f"/v1/capsules/{c}/{below}", body)
            check(f"{below}: nor is the Platform's a team's", a.status == 404, a)


def asked(path, token, *first):
    """The last message and the close code of a stream whose client says who he is, and goes on."""
    s = Socket(URL, path)
    s.send(type="auth", token=token)
    for m in first:
        s.send(**m)
    got = s.all()
    return got[-1] if got else None, s.code


def stream_doors(c):
    bearer = {"Authorization": "Bearer " + root.token}
    start = {"type": "start", "cmd": "true"}
    for who, token, code in (("an owner", owner.token, 4403), ("an operator", operator.token, 4403), ("nobody", "nonsense", 4401)):
        for below in STREAMS:
            said = asked(f"/v1/admin/capsules/{c}/{below}", token)
            check(f"{below}: not for {who}: {code}", said[1] == code, said)
    for other in (foreign, NEVER):
        said = asked(f"/v1/admin/capsules/{other}/exec/stream", root.token, start)
        check("a stream of another team's: 4404", said[1] == 4404, said)
    s = Socket(URL, f"/v1/admin/capsules/{c}/exec/stream", bearer)
    s.send(**start)
    got = s.all()
    check("a header does not say who asks: the first message does", s.status == 101 and s.code == 4401, (s.status, s.code, got))


# ---- what is done with it

def commands(c):
    a = root("POST", f"/v1/admin/capsules/{c}/exec", {"cmd": "sh", "args": ["-c", "echo $WHERE"]})
    check("exec", a.status == 200 and (a.json["stdout"], a.json["exit_code"]) == ("platform\n", 0), a)
    starter = Socket(URL, f"/v1/admin/capsules/{c}/exec/stream")
    starter.send(type="auth", token=root.token)
    starter.send(type="start", cmd="cat", tag="cat", stdin=True)
    pid = starter.recv()["pid"]
    a = root("POST", f"/v1/admin/capsules/{c}/processes/cat/stdin", {"data": base64.b64encode(b"said").decode()})
    said = starter.recv()
    check("stdin, and what comes of it", a.status == 204 and said["data"] == "said", (a, said))
    a = root("GET", f"/v1/admin/capsules/{c}/processes")
    check("processes", a.status == 200 and [p["pid"] for p in a.json["processes"] if p["tag"] == "cat"] == [pid], a)
    a = root("GET", f"/v1/admin/capsules/{c}/processes/cat")
    check("a process", a.status == 200 and a.json["pid"] == pid, a)
    a = root("GET", f"/v1/admin/capsules/{c}/processes/cat/output")
    check("its output", a.status == 200 and b"".join(base64.b64decode(x["data"]) for x in a.json["chunks"]) == b"said", a)
    viewer = Socket(URL, f"/v1/admin/capsules/{c}/processes/cat/stream")
    viewer.send(type="auth", token=root.token)
    check("its stream", viewer.recv()["type"] == "start")
    a = root("DELETE", f"/v1/admin/capsules/{c}/processes/cat")
    check("a signal ends it", a.status == 204 and starter.all()[-1]["type"] == viewer.all()[-1]["type"] == "exit", a)
    check("… and its streams", (starter.code, viewer.code) == (1000, 1000), (starter.code, viewer.code))


def files(c):
    check("write", upload(root, f"/v1/admin/capsules/{c}/files/write", "/tmp/one", "first") == 204)
    check("write, a stream", upload(root, f"/v1/admin/capsules/{c}/files/stream/write", "/tmp/two", "second") == 204)
    a = root("POST", f"/v1/admin/capsules/{c}/files/read", {"path": "/tmp/one"})
    check("read: what was written", (a.status, a.raw) == (200, b"first"), a)
    a = root("POST", f"/v1/admin/capsules/{c}/files/stream/read", {"path": "/tmp/two"})
    check("stream/read: what was written", (a.status, a.raw) == (200, b"second"), a)
    a = root("GET", f"/v1/admin/capsules/{c}/files/content?path=/tmp/one")
    check("content", (a.status, a.raw) == (200, b"first"), a)
    a = root("POST", f"/v1/admin/capsules/{c}/files/stat", {"path": "/tmp/two"})
    check("stat", a.status == 200 and a.json["entry"]["size"] == 6, a)
    s = Socket(URL, f"/v1/admin/capsules/{c}/files/watch?path=/tmp")
    s.send(type="auth", token=root.token)
    check("watch", s.recv()["type"] == "started")
    check("mkdir", root("POST", f"/v1/admin/capsules/{c}/files/mkdir", {"path": "/tmp/made"}).status == 200)
    said = s.recv()
    check("… is seen", (said["event"], said["name"]) == ("create", "made"), said)
    s.cut()
    check("move", root("POST", f"/v1/admin/capsules/{c}/files/move", {"source": "/tmp/two", "destination": "/tmp/made/two"}).status == 200)
    a = root("POST", f"/v1/admin/capsules/{c}/files/list", {"path": "/tmp/made"})
    check("list", a.status == 200 and [e["name"] for e in a.json["entries"]] == ["two"], a)
    check("remove", root("POST", f"/v1/admin/capsules/{c}/files/remove", {"path": "/tmp/made"}).status == 204)


def metrics(c):
    a = root("GET", f"/v1/admin/capsules/{c}/metrics?range=5m")
    check("metrics", a.status == 200 and a.json["sandbox_id"] == c, a)


def demoted(c):
    """Who administers the platform no more has no right here, also to what is open."""
    s = Socket(URL, f"/v1/admin/capsules/{c}/pty")
    s.send(type="auth", token=root.token)
    s.send(type="start", cmd="/bin/sh")
    check("pty", s.recv()["type"] == "started")
    role(root, "operator")
    try:
        s.all(90)
    except (TimeoutError, Closed):
        pass
    check("an administrator no more: his terminal closes, 4403", s.code == 4403, s.code)
    said = until(lambda: root("POST", f"/v1/admin/capsules/{c}/exec", {"cmd": "true"}).status == 403)
    check("… and he runs no commands", said)
    role(root, "admin")


def deleted(c):
    a = root("DELETE", f"/v1/admin/capsules/{c}")
    check("delete: 204", a.status == 204, a)
    check("… it stops", until(lambda: root("GET", f"/v1/admin/capsules/{c}").json["state"] == "stopped"), root("GET", f"/v1/admin/capsules/{c}"))
    want = [f"sandbox/{action} {root.id} team" for action in ("create", "destroy")]
    check("the Platform's log says who made it and who destroyed it", log_of(c) == want, log_of(c))
    events = sql(f"SELECT DISTINCT type FROM events WHERE team_id = '{uuid_of(PLATFORM)}' AND resource_id = '{c}'").split()
    check("its events are the Platform's", {"capsule.created", "capsule.running", "capsule.destroyed"} <= set(events), events)


def row(person):
    u = str(uuid.uuid4())
    sql("INSERT INTO capsules (id, team_id, owner_id, template_id, template_name, template_version, desired_state, observed_state, vcpus, memory_mb, "
        f"disk_size_mb) SELECT '{u}', '{uuid_of(person.team)}', '{uuid_of(person.id)}', id, name, current_version, 'stopped', 'stopped', 1, 512, 5120 "
        "FROM templates WHERE name = 'minimal' LIMIT 1")
    return wire("cl-", u)


NEVER = wire("cl-", str(uuid.uuid4()))
root, operator, owner = Person("root"), Person("operator"), Person("owner")
role(root, "admin")
role(operator, "operator")
key = root("POST", "/v1/api-keys", {"name": "k"}).json["key"]
foreign, own = row(owner), row(root)
made = None
try:
    refused()
    made = created()
    doors(made)
    stream_doors(made)
    commands(made)
    files(made)
    metrics(made)
    demoted(made)
    deleted(made)
finally:
    role(root, "admin")
    if made:
        root("DELETE", f"/v1/admin/capsules/{made}")
    for person in (root, operator):
        role(person, "user")
end()
