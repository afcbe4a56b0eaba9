"""guest_watch.py - checks of the guest agent: what happens in directories."""
import os
import shutil
import subprocess
import time

from guest_files import put
from guest_lib import F, check, has, same, until


def fresh(a, name):
    path = f"{a.dir}/{name}"
    os.makedirs(path)
    return path


def watch(a, path, headers=None, **more):
    s = a.stream(F + "WatchDir", {"path": path, **more}, **(headers or {}))
    same(s.message(), {"start": {}})
    return s


def events(s, n):
    """n events as (type, name)."""
    got = []
    while len(got) < n:
        m = s.message()
        if m is None:
            raise AssertionError(f"only {got}, then {s.end}")
        if "filesystem" in m:
            got.append((m["filesystem"]["type"].removeprefix("EVENT_TYPE_"), m["filesystem"]["name"]))
    return got


@check("agent")
def changes_are_told(a):
    path = fresh(a, "w1")
    s = watch(a, path)
    with open(path + "/f", "w") as f:
        f.write("x")
    same(events(s, 2), [("CREATE", "f"), ("WRITE", "f")])
    os.chmod(path + "/f", 0o600)
    os.rename(path + "/f", path + "/g")
    os.unlink(path + "/g")
    same(events(s, 4), [("CHMOD", "f"), ("RENAME", "f"), ("CREATE", "g"), ("REMOVE", "g")])
    os.mkdir(path + "/d")
    open(path + "/d/below", "w").close()  # not recursive
    os.mkdir(path + "/e")
    same(events(s, 2), [("CREATE", "d"), ("CREATE", "e")])
    shutil.rmtree(path)
    same(events(s, 3)[-1], ("REMOVE", "."))
    s.close()


@check("agent")
def directories_below_are_watched_at_once(a):
    path = fresh(a, "w2")
    os.makedirs(path + "/old/er")
    other = fresh(a, "w2other")
    os.makedirs(other + "/tree/sub")
    open(other + "/tree/sub/leaf", "w").close()
    s = watch(a, path, recursive=True)
    open(path + "/old/er/x", "w").close()
    same(events(s, 1), [("CREATE", "old/er/x")])
    # many levels made faster than they can be watched: each is told exactly once
    subprocess.run(["sh", "-c", f"cd {path} && mkdir -p n/e/w/e/r && for f in n/1 n/e/2 n/e/w/3 n/e/w/e/r/4; do : > $f; done"], check=True)
    got = events(s, 9)
    same(sorted(n for t, n in got if t == "CREATE"),
         sorted(["n", "n/e", "n/e/w", "n/e/w/e", "n/e/w/e/r", "n/1", "n/e/2", "n/e/w/3", "n/e/w/e/r/4"]))
    os.rename(other + "/tree", path + "/tree")
    same(sorted(n for _, n in events(s, 3)), ["tree", "tree/sub", "tree/sub/leaf"])
    os.rename(path + "/tree", path + "/moved")
    got = events(s, 4)
    same((got[0], sorted(n for _, n in got[1:])), (("RENAME", "tree"), ["moved", "moved/sub", "moved/sub/leaf"]))
    open(path + "/moved/sub/leaf", "a").write("x")
    same(events(s, 1), [("WRITE", "moved/sub/leaf")])
    shutil.rmtree(path + "/moved")
    same(events(s, 3), [("REMOVE", "moved/sub/leaf"), ("REMOVE", "moved/sub"), ("REMOVE", "moved")])
    s.close()


@check("agent")
def events_may_have_entries(a):
    path = fresh(a, "w3")
    s = watch(a, path, includeEntry=True)
    with open(path + "/f", "w") as f:
        f.write("12345")
    messages = [s.message()["filesystem"] for _ in range(2)]
    same((messages[0]["entry"]["path"], messages[0]["entry"]["type"]), (path + "/f", "FILE_TYPE_FILE"))
    same(messages[1]["entry"]["size"], "5")
    os.unlink(path + "/f")
    m = s.message()["filesystem"]
    same((m["type"], "entry" in m), ("EVENT_TYPE_REMOVE", False))
    s.close()


@check("agent")
def uploads_look_like_writes(a):
    path = fresh(a, "w10")
    os.mkdir(path + "/d")
    s = watch(a, path, recursive=True)
    put(a, path + "/d/f", b"1")
    same(events(s, 2), [("CREATE", "d/f"), ("WRITE", "d/f")])
    put(a, path + "/d/f", b"2")
    os.mkdir(path + "/end")
    same(events(s, 2), [("WRITE", "d/f"), ("CREATE", "end")])
    s.close()


@check("agent")
def watches_keep_alive_and_have_deadlines(a):
    path = fresh(a, "w4")
    s = watch(a, path, {"keepalive-ping-interval": "1"})
    same(s.message(), {"keepalive": {}})
    s.close()
    for _ in range(20):  # the deadline may come before the start, when this machine stands still
        s = a.stream(F + "WatchDir", {"path": path}, connect_timeout_ms="300")
        first = s.message()
        if first is None:
            same(s.end["error"]["code"], "deadline_exceeded")
            s.close()
            continue
        same((first, s.message(), s.end["error"]["code"]), ({"start": {}}, None, "deadline_exceeded"))
        break
    else:
        raise AssertionError("it never began")
    s.close()


@check("agent")
def what_cannot_be_watched(a):
    open(f"{a.dir}/w5", "w").close()
    for path, code in (("/nowhere", "not_found"), (f"{a.dir}/w5", "invalid_argument"), ("~root2/x", "invalid_argument")):
        s = a.stream(F + "WatchDir", {"path": path})
        same((s.message(), s.end["error"]["code"]), (None, code))
        s.close()
        same(a.rpc(F + "CreateWatcher", {"path": path})[1]["code"], code)
    for call in ("GetWatcherEvents", "RemoveWatcher"):
        same(a.rpc(F + call, {"watcherId": "w1"}), (404, {"code": "not_found", "message": "watcher with id w1 not found"}))


@check("agent")
def watchers_are_asked(a):
    path = fresh(a, "w6")
    w = a.ok(F + "CreateWatcher", {"path": path, "recursive": True})
    same(a.ok(F + "GetWatcherEvents", w), {})
    os.mkdir(path + "/d")
    open(path + "/d/f", "w").close()
    seen = []
    until("both", lambda: seen.extend(a.ok(F + "GetWatcherEvents", w).get("events", [])) or len(seen) > 1)
    same(seen, [{"name": "d", "type": "EVENT_TYPE_CREATE"}, {"name": "d/f", "type": "EVENT_TYPE_CREATE"}])
    same(a.ok(F + "GetWatcherEvents", w), {})
    a.ok(F + "RemoveWatcher", w)
    w, other = (a.ok(F + "CreateWatcher", {"path": path + "/d"}) for _ in range(2))
    # the oldest go after 10,000
    for first in range(0, 12000, 1000):
        for i in range(first, first + 1000):
            os.mkdir(f"{path}/d/{i}")
        until(f"the end of {first}", lambda: any(
            e["name"] == f"{first + 999}" for e in a.ok(F + "GetWatcherEvents", other).get("events", [])))
    a.ok(F + "RemoveWatcher", other)
    time.sleep(1)
    names = [e["name"] for e in a.ok(F + "GetWatcherEvents", w)["events"]]
    same((len(names), names[0], names[-1]), (10000, "2000", "11999"))
    same(a.ok(F + "RemoveWatcher", w), {})
    same(a.rpc(F + "GetWatcherEvents", w)[0], 404)
    shutil.rmtree(path)


@check("agent")
def too_many_watchers_are_refused(a):
    path = fresh(a, "w7")
    made, refusal = [], None
    for _ in range(80):
        status, answer = a.rpc(F + "CreateWatcher", {"path": path})
        if status != 200:
            refusal = (status, answer)
            break
        made.append(answer)
    same((len(made), refusal), (64, (429, {"code": "resource_exhausted", "message": "too many watchers"})))
    for w in made:
        a.ok(F + "RemoveWatcher", w)


@check("agent")
def lost_events_end_the_stream(a):
    path = fresh(a, "w8")
    s = watch(a, path)
    # nobody reads: windows and queues fill, then the kernel's queue of 16,384
    script = f"import os\nfor i in range(40000): os.mkdir('{path}/{'n' * 100}%d' % i)"
    subprocess.run(["python3", "-c", script], check=True)
    s.rest()
    same((s.end or {}).get("error", {}).get("code"), "resource_exhausted")
    shutil.rmtree(path)


@check("agent")
def watches_are_done_as_the_user(a):
    if os.geteuid():
        return
    path = fresh(a, "w9")
    os.chmod(path, 0o700)
    for name in os.path.dirname(path), a.dir:
        os.chmod(name, 0o755)
    status, answer = a.rpc(F + "CreateWatcher", {"path": path}, authorization="Basic bm9ib2R5Og==")
    same((status, answer["code"]), (403, "permission_denied"))
    has(answer["message"], "permission denied")
