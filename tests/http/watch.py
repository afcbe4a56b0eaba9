#!/usr/bin/env python3
"""watch.py - metrics in every state and live, logs with follow, ping: through the web server, on an instance with real capsules."""
import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from sockets import Socket  # noqa: E402

URL = urlsplit(os.environ.get("HUTCH_URL", "http://localhost:8080"))
KEY = {"X-API-Key": os.environ.get("HUTCH_API_KEY", "")}
FAILED = 0


def call(method, path, body=None, headers=KEY):
    c = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=150)
    c.request(method, path, None if body is None else json.dumps(body), {**headers, "Content-Type": "application/json"})
    r = c.getresponse()
    data = r.read()
    try:
        return r.status, json.loads(data) if data else None
    except ValueError:
        return r.status, data


def check(name, good, why=""):
    global FAILED
    FAILED += not good
    print("ok %s" % name if good else "not ok %s: %s" % (name, str(why)[:400]), flush=True)


def wait_for(test, seconds):
    end = time.time() + seconds
    while time.time() < end:
        got = test()
        if got:
            return got
        time.sleep(0.3)
    return None


def metrics(base):
    def enough():
        status, got = call("GET", base + "/metrics?range=5m")
        return status == 200 and len(got["points"]) >= 5 and got
    got = wait_for(enough, 120)
    check("metrics have points", bool(got), call("GET", base + "/metrics"))
    if got:
        p = got["points"][-1]
        check("a point has its figures", p["mem_bytes"] > 0 and 0 <= p["cpu_pct"] <= 100 and "disk_bytes" in p, p)
        check("points are of now, in order", abs(p["timestamp_unix"] - time.time()) < 60
              and [x["timestamp_unix"] for x in got["points"]] == sorted(x["timestamp_unix"] for x in got["points"]), got)
    for name in ("10m", "1h", "2h", "6h", "12h", "24h"):
        status, got = call("GET", base + "/metrics?range=" + name)
        check("range %s" % name, status == 200 and got["range"] == name, (status, got))
    check("a range that is none", call("GET", base + "/metrics?range=3m")[0] == 400)
    check("no credential", call("GET", base + "/metrics", headers={})[0] == 401)


def live(base):
    """Two who listen to one capsule: what its host measures, every 5 s, each second once."""
    capsule = "capsule:" + base.rsplit("/", 1)[1]

    def listen(**more):
        ws = Socket(os.environ.get("HUTCH_URL", "http://localhost:8080"), "/v1/events/ws", KEY)
        ws.send(type="subscribe", id="1", topics=[capsule], **more)
        check("subscribed", ws.recv(60)["topics"] == [capsule])
        return ws
    a, b, none = listen(metrics=True), listen(metrics=True), listen()
    got, at, points = [], [], []

    def steady():
        """The first one may have waited for us; a turn in which the host said nothing new is left out, a busy machine bunches some."""
        return any(6 < at[i + 2] - at[i] < 28 for i in range(1, len(at) - 2))
    while len(points) < 12 or not steady() and len(got) < 14:
        m = a.recv(60)
        if m["type"] == "live":
            got.append(m)
            at.append(time.time())
            points += m["data"]["points"]
    check("figures of a capsule every 5 s", steady() and all(m["topic"] == capsule and m["live"] == "metrics" for m in got), (at, got))
    times = [p["timestamp_unix"] for p in points]
    check("each second once, in order", len(times) >= 10 and times == sorted(set(times)) and abs(times[-1] - time.time()) < 30, times)
    stored = {p["timestamp_unix"]: p for p in call("GET", base + "/metrics?range=5m")[1]["points"]}
    same = [p == stored[p["timestamp_unix"]] for p in points if p["timestamp_unix"] in stored]
    check("the same as GET …/metrics tells", len(same) >= 10 and all(same), (points[:2], same))
    # two processes of the gateway cut the seconds into pages each in its own way
    heard, other = {p["timestamp_unix"]: p for p in points}, []
    while not any(p["timestamp_unix"] in heard for p in other):
        m = b.recv(60)
        other += m["data"]["points"] if m["type"] == "live" else []
    both = [p for p in other if p["timestamp_unix"] in heard]
    check("all who listen hear the same", both == [heard[p["timestamp_unix"]] for p in both], (both, points))
    quiet = None
    try:
        while quiet is None or quiet["type"] != "live":
            quiet = none.recv(0.5)
    except TimeoutError:
        quiet = None
    check("who did not ask for them hears none", quiet is None, quiet)
    a.send(type="subscribe", id="2", topics=[capsule])
    while a.recv(60).get("id") != "2":
        pass
    try:
        m = None
        while m is None or m["type"] != "live":
            m = a.recv(7)
    except TimeoutError:
        m = None
    check("nor who asks anew without", m is None, m)
    for ws in (a, b, none):
        ws.close()


def logs(base):
    for i in range(3):
        call("POST", base + "/exec", {"cmd": "sh", "args": ["-c", "echo word-%d >/dev/hvc0" % i]})

    def said():
        """The kernel may say something of its own between them."""
        status, got = call("GET", base + "/logs?source=serial&tail=50")
        return status == 200 and [line for line in got["lines"] if line.startswith("word-")] == ["word-0", "word-1", "word-2"]
    check("the console's last lines", bool(wait_for(said, 60)), call("GET", base + "/logs"))
    check("as many as were asked for", len(call("GET", base + "/logs?source=serial&tail=2")[1]["lines"]) == 2)
    status, got = call("GET", base + "/logs?source=agent")
    check("what the host did", status == 200 and any("running" in line for line in got["lines"]), got)
    check("the boot log", call("GET", base + "/logs?source=boot")[0] == 200)
    for bad in ("source=x", "tail=0", "tail=10001", "tail=x", "follow=maybe"):
        check("refused: " + bad, call("GET", base + "/logs?" + bad)[0] == 400)


def follow(base):
    c = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=60)
    c.request("GET", base + "/logs?source=serial&tail=1&follow=true", headers=KEY)
    r = c.getresponse()
    check("follow is a stream of events", r.status == 200 and r.getheader("Content-Type", "").startswith("text/event-stream"), r.status)
    call("POST", base + "/exec", {"cmd": "sh", "args": ["-c", "echo followed >/dev/hvc0"]})
    text, end = b"", time.time() + 60
    while b"data: followed" not in text and time.time() < end:
        text += r.read1(4096)
    check("what is said comes", b"data: followed" in text and b"id: " in text, text)
    c.close()


def main():
    status, made = call("POST", "/v1/capsules", {"memory_mb": 256, "timeout_sec": 600})
    if status != 201:
        print("not ok a capsule: %s %s" % (status, made))
        return 1
    base = "/v1/capsules/" + made["id"]
    wait_for(lambda: call("GET", base)[1]["status"] == "running", 180)
    try:
        metrics(base)
        live(base)
        logs(base)
        follow(base)
        check("ping", call("POST", base + "/ping")[0] == 204)
    finally:
        call("DELETE", base)
    wait_for(lambda: call("GET", base)[1].get("status") == "stopped", 120)

    def stored():
        status, got = call("GET", base + "/metrics?range=10m")
        return status == 200 and len(got["points"]) >= 5
    check("metrics of one that is gone come from the tables", bool(wait_for(stored, 90)), call("GET", base + "/metrics"))
    check("its logs are empty", call("GET", base + "/logs")[1].get("lines") == [], call("GET", base + "/logs"))
    check("ping of one that is gone", call("POST", base + "/ping")[0] == 409, call("POST", base + "/ping"))
    return FAILED > 0


if __name__ == "__main__":
    sys.exit(main())
