#!/usr/bin/env python3
"""e2b.py - the wire of the E2B protocol: the exchanges of spec 06 §17 that are built, errors, pages, names, rights.

Needs a running instance (tests/lib/instance env) with an agent: HUTCH_URL, HUTCH_API_KEY. What the published clients make
of it: tests/compat/.
"""
import base64
import calendar
import hashlib
import http.client
import json
import os
import re
import struct
import sys
import time
from urllib.parse import quote, urlsplit

URL = urlsplit(os.environ["HUTCH_URL"])
KEY = "e2b_" + os.environ["HUTCH_API_KEY"].split("_")[1]
TEMPLATE = os.environ.get("HUTCH_E2B_TEMPLATE", "minimal")
ID = re.compile(r"[0-9a-z]{25}$")
failed = 0


def check(name):
    """Runs the function at once: a test."""
    def run(fn):
        global failed
        try:
            fn()
            print(f"ok {name}", flush=True)
        except Exception as e:  # a broken answer is a failed test, whatever it breaks
            failed += 1
            print(f"not ok {name}: {type(e).__name__}: {str(e)[:500]}", flush=True)
        return fn
    return run


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, not {wanted!r}")


def call(method, path, body=None, headers=None, pieces=None, key=KEY):
    """One request; a body goes chunked, without a length, as the clients send it. Status, headers, body."""
    c = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=180)
    names = {"X-API-KEY": key} if key else {}
    names.update(headers or {})
    data = None
    if body is not None:
        names.setdefault("Content-Type", "application/json")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        n = pieces or len(raw)
        data = iter([raw[i:i + n] for i in range(0, len(raw), n)])
    try:
        c.request(method, path, data, names, encode_chunked=data is not None)
        a = c.getresponse()
        return a.status, {k.lower(): v for k, v in a.getheaders()}, a.read()
    finally:
        c.close()


def js(answer):
    return json.loads(answer[2])


def error(answer, status, code):
    same((answer[0], js(answer)["code"], js(answer)["error_code"], sorted(js(answer))),
         (status, status, code, ["code", "error_code", "message"]))


def frames(raw):
    """The messages of a stream: (flags, JSON)."""
    found = []
    while raw:
        flags, n = struct.unpack(">BI", raw[:5])
        found.append((flags, json.loads(raw[5:5 + n])))
        raw = raw[5 + n:]
    return found


def start(box, message):
    text = json.dumps(message).encode()
    return call("POST", "/process.Process/Start", struct.pack(">BI", 0, len(text)) + text,
                {"Content-Type": "application/connect+json", "E2b-Sandbox-Id": box["sandboxID"], "E2b-Sandbox-Port": "49983",
                 "X-Access-Token": box["envdAccessToken"], "Connect-Timeout-Ms": "60000"}, key=None)


box = {}
JOB = f"nightly {time.time()}"


@check("exchange 1: create, with a body of chunks of one byte")
def _():
    a = call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "timeout": 600, "metadata": {"job": JOB}, "envVars": {"STAGE": "test"}},
             pieces=1)
    same(a[0], 201)
    box.update(js(a))
    same(list(box), ["sandboxID", "templateID", "alias", "clientID", "envdVersion", "envdAccessToken", "trafficAccessToken", "domain"])
    same((box["alias"], box["clientID"], box["envdVersion"], box["trafficAccessToken"]), (TEMPLATE, "hutch", "0.6.13", None))
    assert ID.match(box["sandboxID"]) and ID.match(box["templateID"]) and re.fullmatch("[0-9a-f]{64}", box["envdAccessToken"])


@check("exchange 2: a command")
def _():
    a = start(box, {"process": {"cmd": "/bin/sh", "args": ["-c", "echo 118"], "cwd": "/tmp"}, "stdin": False})
    same((a[0], a[1]["content-type"]), (200, "application/connect+json"))
    f = frames(a[2])
    assert f[0][0] == 0 and f[0][1]["event"]["start"]["pid"] > 0, f
    same(f[1], (0, {"event": {"data": {"stdout": "MTE4Cg=="}}}))
    same(f[-2], (0, {"event": {"end": {"exited": True, "status": "exit status 0"}}}))
    same(f[-1], (2, {}))


@check("exchange 3: a command that cannot start")
def _():
    a = start(box, {"process": {"cmd": "/bin/sh", "args": ["-c", "true"], "cwd": "/nowhere"}, "stdin": False})
    same((a[0], frames(a[2])), (200, [(2, {"error": {"code": "invalid_argument", "message": "cwd '/nowhere' does not exist"}})]))


def guest(method, path, body=None, **headers):
    """A call of the guest protocol, with the headers that every such call has."""
    names = {"E2b-Sandbox-Id": box["sandboxID"], "E2b-Sandbox-Port": "49983", "X-Access-Token": box["envdAccessToken"]}
    return call(method, path, body, dict(names, **{k.replace("_", "-"): v for k, v in headers.items()}), key=None)


def stream(path, message):
    """Opens a stream of the guest protocol; yields its messages as they come."""
    text = json.dumps(message).encode()
    c = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=180)
    c.request("POST", path, struct.pack(">BI", 0, len(text)) + text, {
        "Content-Type": "application/connect+json", "E2b-Sandbox-Id": box["sandboxID"], "E2b-Sandbox-Port": "49983",
        "X-Access-Token": box["envdAccessToken"]})
    a = c.getresponse()
    same((a.status, a.getheader("content-type")), (200, "application/connect+json"))
    while True:
        head = a.read(5)
        if len(head) < 5:
            c.close()
            return
        yield json.loads(a.read(struct.unpack(">BI", head)[1]))


@check("exchange 4: an upload, then a signed download without any header")
def _():
    a = guest("POST", "/files?path=report%2Fq3.csv&username=root", b"a;b\n1;2\n", Content_Type="application/octet-stream",
              X_Metadata_Source="erp")
    same((a[0], js(a)), (200, [{"name": "q3.csv", "path": "/root/report/q3.csv", "type": "file", "metadata": {"source": "erp"}}]))

    def signed(expires):
        text = f"report/q3.csv:read:root:{box['envdAccessToken']}:{expires}"
        made = "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        return call("GET", f"/files?path=report/q3.csv&username=root&signature={quote(made, safe='')}&signature_expiration={expires}", key=None)

    a = signed(int(time.time()) + 300)
    same((a[0], a[1]["content-disposition"], a[2]), (200, "inline; filename=q3.csv", b"a;b\n1;2\n"))
    a = signed(1000)
    same((a[0], js(a)), (401, {"code": 401, "message": "signature expired"}))


@check("exchange 5: a terminal, its input, its end by a signal")
def _():
    s = stream("/process.Process/Start", {"process": {"cmd": "/bin/sh", "envs": {"TERM": "xterm"}}, "pty": {"size": {"cols": 120, "rows": 40}}})
    pid = {"pid": next(s)["event"]["start"]["pid"]}
    line = base64.b64encode(b"echo si''ze $(stty size)\n").decode()
    same(js(guest("POST", "/process.Process/SendInput", {"process": pid, "input": {"pty": line}})), {})
    seen = b""
    while b"size 40 120" not in seen:
        seen += base64.b64decode(next(s)["event"].get("data", {}).get("pty", ""))
    same(js(guest("POST", "/process.Process/SendSignal", {"process": pid, "signal": "SIGNAL_SIGKILL"})), {})
    rest = list(s)
    same(rest[-2:], [{"event": {"end": {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}}}, {}])


@check("exchange 6: a watched directory, with the entry")
def _():
    guest("POST", "/filesystem.Filesystem/MakeDir", {"path": "/tmp/inbox/new"})
    s = stream("/filesystem.Filesystem/WatchDir", {"path": "/tmp/inbox", "recursive": True, "includeEntry": True})
    same(next(s), {"start": {}})
    same(guest("POST", "/files?path=/tmp/inbox/new/a.eml&username=root", b"mail", Content_Type="application/octet-stream")[0], 200)
    for m in s:
        f = m.get("filesystem")
        if f and f["name"] == "new/a.eml":  # written aside, then renamed
            break
    assert f["type"] == "EVENT_TYPE_CREATE", f
    e = f["entry"]
    same((e["name"], e["path"], e["type"], e["mode"], e["permissions"], e["owner"]),
         ("a.eml", "/tmp/inbox/new/a.eml", "FILE_TYPE_FILE", 420, "-rw-r--r--", "root"))


@check("exchange 7: a page of a list")
def _():
    other = js(call("POST", "/sandboxes", {"templateID": f"platform/{TEMPLATE}:default", "timeout": 300, "metadata": {"job": JOB}}))
    try:
        where = "/v2/sandboxes?state=running,paused&limit=1&metadata=" + quote("job=" + quote(quote(JOB)), safe="")
        a = call("GET", where)
        same((a[0], len(js(a)), js(a)[0]["sandboxID"]), (200, 1, other["sandboxID"]))
        assert int(a[1]["x-total-running"]) >= 2
        same(list(js(a)[0]), ["sandboxID", "templateID", "alias", "clientID", "startedAt", "endAt", "state", "cpuCount", "memoryMB",
                              "diskSizeMB", "envdVersion", "metadata"])
        b = call("GET", where + "&nextToken=" + a[1]["x-next-token"])
        same(([s["sandboxID"] for s in js(b)], "x-next-token" in b[1]), ([box["sandboxID"]], False))
        up = call("GET", where + "&order=asc")
        same(js(up)[0]["sandboxID"], box["sandboxID"])
        error(call("GET", where + "&nextToken=" + a[1]["x-next-token"][:-4] + "AAAA"), 400, "invalid_request")
        error(call("GET", "/v2/sandboxes?limit=101"), 400, "invalid_request")
        error(call("GET", "/v2/sandboxes?state=dead"), 400, "invalid_request")
        same([s["sandboxID"] for s in js(call("GET", "/sandboxes?metadata=" + quote(f"job={quote(JOB)}", safe="")))][-1], box["sandboxID"])
    finally:
        same(call("DELETE", "/sandboxes/" + other["sandboxID"])[0], 204)


@check("one: its detail")
def _():
    d = js(call("GET", "/sandboxes/" + box["sandboxID"]))
    same((d["state"], d["lifecycle"], d["allowInternetAccess"], d["network"]["allowPublicTraffic"], d["metadata"]),
         ("running", {"onTimeout": "kill", "autoResume": False}, True, True, {"job": JOB}))
    same(d["envdAccessToken"], box["envdAccessToken"])


@check("times: set, refreshed, never shortened by connect")
def _():
    def left():
        end = js(call("GET", "/sandboxes/" + box["sandboxID"]))["endAt"]
        return calendar.timegm(time.strptime(end[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()
    same(call("POST", f"/sandboxes/{box['sandboxID']}/timeout", {"timeout": 300})[0], 204)
    assert 240 < left() < 305, left()
    same(call("POST", f"/sandboxes/{box['sandboxID']}/refreshes", {"duration": 100})[0], 204)
    assert left() > 200, left()
    same(call("POST", f"/sandboxes/{box['sandboxID']}/refreshes", {"duration": 900})[0], 204)
    assert 840 < left() < 905, left()
    same(call("POST", f"/sandboxes/{box['sandboxID']}/connect", {"timeout": 10})[0], 200)
    assert left() > 700, left()
    error(call("POST", f"/sandboxes/{box['sandboxID']}/connect", {}), 400, "invalid_request")
    error(call("POST", f"/sandboxes/{box['sandboxID']}/timeout", {"timeout": 99999999}), 400, "invalid_request")


@check("network: replaced whole; what is not built is refused")
def _():
    path = f"/sandboxes/{box['sandboxID']}/network"
    same(call("PUT", path, {"allowOut": ["198.51.100.0/24", "a.example"], "denyOut": ["0.0.0.0/0"]})[0], 204)
    d = js(call("GET", "/sandboxes/" + box["sandboxID"]))
    same((d["allowInternetAccess"], d["network"]["allowOut"]), (False, ["198.51.100.0/24", "a.example"]))
    error(call("PUT", path, {"denyOut": ["a.example"]}), 400, "invalid_request")
    error(call("PUT", path, {"egressProxy": {"address": "p.example:1080"}}), 400, "unsupported")
    error(call("PUT", path, {"rules": {"a.example": [{}]}}), 400, "unsupported")
    same(call("PUT", path, {})[0], 204)
    d = js(call("GET", "/sandboxes/" + box["sandboxID"]))
    same((d["allowInternetAccess"], d["network"]["allowOut"]), (True, []))


@check("metrics, logs, teams")
def _():
    for _ in range(300):
        m = js(call("GET", f"/sandboxes/{box['sandboxID']}/metrics"))
        if m and m[-1]["memCache"]:  # the guest is asked once in ten seconds
            break
        time.sleep(0.3)
    assert 1 << 20 < m[-1]["memCache"] < m[-1]["memTotal"] and 0 < m[-1]["memUsed"] < m[-1]["memTotal"], m[-1]
    same(list(m[0]), ["timestamp", "timestampUnix", "cpuCount", "cpuUsedPct", "memUsed", "memTotal", "memCache", "diskUsed", "diskTotal"])
    many = js(call("GET", f"/sandboxes/metrics?sandbox_ids={box['sandboxID']},{'0' * 25}"))
    same(list(many["sandboxes"]), [box["sandboxID"]])
    one = box["sandboxID"]
    logs = js(call("GET", f"/sandboxes/{one}/logs"))
    same((json.loads(logs["logs"][0]["line"])["message"], logs["logEntries"][0]["message"]), ("capsule.created", "capsule.created"))
    back = js(call("GET", f"/v2/sandboxes/{one}/logs?direction=backward&limit=1"))["logs"]
    same(len(back), 1)
    found = js(call("GET", f"/v2/sandboxes/{one}/logs?search=created&level=info"))["logs"]
    same(([e["message"] for e in found], found[0]["fields"]["template"], found[0]["fields"]["vcpus"]), (["capsule.created"], TEMPLATE, "1"))
    assert all(isinstance(v, str) for e in logs["logEntries"] for v in e["fields"].values()), logs["logEntries"]
    same(js(call("GET", f"/v2/sandboxes/{one}/logs?search=created&level=error"))["logs"], [])
    error(call("GET", f"/v2/sandboxes/{one}/logs?level=loud"), 400, "invalid_request")
    error(call("GET", "/teams"), 403, "forbidden")
    error(call("GET", "/teams/00000000-0000-0000-0000-00000000abcd/metrics"), 404, "not_found")
    error(call("GET", "/teams/00000000-0000-0000-0000-00000000abcd/metrics/max"), 404, "not_found")


@check("exchange 8: paused twice, connected")
def _():
    path = f"/sandboxes/{box['sandboxID']}"
    same(call("POST", path + "/pause", {})[0], 204)
    a = call("POST", path + "/pause", {})
    same((a[0], js(a)), (409, {"code": 409, "message": "already paused", "error_code": "invalid_state"}))
    error(call("POST", path + "/timeout", {"timeout": 100}), 404, "not_found")
    assert max(p["memCache"] for p in js(call("GET", path + "/metrics"))) > 1 << 20, "what the host remembered went with it"
    copy = js(call("POST", path + "/fork", {"timeout": 120}))[0]["sandbox"]  # while it sleeps
    same(js(call("GET", "/sandboxes/" + copy["sandboxID"]))["state"], "running")
    same(call("DELETE", "/sandboxes/" + copy["sandboxID"])[0], 204)
    same(js(call("GET", path))["state"], "paused")
    a = call("POST", f"/v2{path}/connect", {"timeout": 900})
    same((a[0], js(a)["sandboxID"]), (201, box["sandboxID"]))
    error(call("POST", path + "/resume", {}), 409, "invalid_state")
    same(call("POST", path + "/pause", {})[0], 204)
    same(call("POST", path + "/resume", {"timeout": 600})[0], 201)


@check("exchange 9: a fork of two")
def _():
    a = call("POST", f"/sandboxes/{box['sandboxID']}/fork", {"count": 2, "timeout": 120})
    same((a[0], len(js(a))), (201, 2))
    for one in js(a):
        same(list(one), ["sandbox"])
        assert one["sandbox"]["sandboxID"] != box["sandboxID"]
        same(call("DELETE", "/sandboxes/" + one["sandbox"]["sandboxID"])[0], 204)


@check("snapshots: a name that moves, names in one segment, deleted with all versions")
def _():
    path, name = f"/sandboxes/{box['sandboxID']}/snapshots", f"e2b-{int(time.time())}"
    first = call("POST", path, {"name": name})
    same(first[0], 201)
    full = js(first)["snapshotID"]
    assert re.fullmatch(r"[0-9a-z-]+/" + name + ":default", full), full
    same(js(first)["names"], [full.split(":")[0]])
    same(js(call("POST", path, {"name": full}))["snapshotID"], full)
    bare = js(call("POST", path, {}))
    same((len(bare["snapshotID"].split(":")[0]), bare["names"]), (25, []))
    listed = [s["snapshotID"] for s in js(call("GET", f"/snapshots?sandboxID={box['sandboxID']}"))]
    same(listed, [bare["snapshotID"], full])
    page = call("GET", f"/snapshots?sandboxID={box['sandboxID']}&limit=1")
    same([s["snapshotID"] for s in js(call("GET", f"/snapshots?sandboxID={box['sandboxID']}&nextToken=" + page[1]["x-next-token"]))], [full])
    same([s["snapshotID"] for s in js(call("GET", f"/snapshots?name={name}"))], [full])
    error(call("POST", path, {"name": TEMPLATE}), 409, "invalid_state")
    error(call("POST", path, {"name": "no such"}), 400, "invalid_request")
    made = js(call("POST", "/v2/sandboxes", {"templateID": full, "timeout": 300}))
    same(made["alias"], name)
    same(call("DELETE", "/sandboxes/" + made["sandboxID"])[0], 204)
    same(call("DELETE", "/templates/" + quote(full, safe=""))[0], 204)
    error(call("DELETE", "/templates/" + quote(full, safe="")), 404, "not_found")
    same(call("DELETE", "/templates/" + quote(bare["snapshotID"], safe=""))[0], 204)


@check("templates: list, one by any of its names, alias")
def _():
    found = {t["aliases"][0]: t for t in js(call("GET", "/templates"))}
    one = found[TEMPLATE]
    same((one["templateID"], one["names"], one["buildStatus"]), (box["templateID"], [f"platform/{TEMPLATE}"], "ready"))
    same(len(js(call("GET", "/v2/templates?limit=1"))), 1)
    for name in (one["templateID"], TEMPLATE, f"platform/{TEMPLATE}", f"platform/{TEMPLATE}:default"):
        same(js(call("GET", "/templates/" + quote(name, safe="")))["builds"][0]["buildID"], one["buildID"])
    same(js(call("GET", "/templates/aliases/" + TEMPLATE)), {"templateID": one["templateID"], "public": True})
    for name in ("nothing", "other/" + TEMPLATE, TEMPLATE + ":v9"):
        error(call("GET", "/templates/" + quote(name, safe="")), 404, "not_found")
    error(call("GET", "/templates/aliases/nothing"), 404, "not_found")
    error(call("DELETE", "/templates/" + TEMPLATE), 403, "forbidden")


@check("errors: the four fields of every refusal, of the router, too")
def _():
    error(call("GET", "/v2/sandboxes", key=None), 401, "unauthorized")
    error(call("GET", "/v2/sandboxes", key="e2b_" + "0" * 40), 401, "unauthorized")
    error(call("GET", "/sandboxes/nope"), 404, "not_found")
    error(call("GET", "/sandboxes/" + "0" * 25), 404, "not_found")
    error(call("GET", "/sandboxes/x/y/z"), 404, "not_found")
    error(call("PATCH", "/sandboxes/" + "0" * 25), 405, "method_not_allowed")
    error(call("POST", "/v2/sandboxes", b"{"), 400, "invalid_request")
    error(call("POST", "/v2/sandboxes", {}), 400, "invalid_request")
    error(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "timeout": -1}), 400, "invalid_request")
    error(call("POST", "/v2/sandboxes", {"templateID": "nothing"}), 404, "not_found")
    error(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "iam": {"tokens": {}}}), 400, "unsupported")
    error(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "volumeMounts": [{"name": "v", "path": "/v"}]}), 400, "unsupported")
    error(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "autoPause": True, "autoPauseMemory": False,
                                            "autoResume": {"enabled": True}}), 400, "invalid_request")
    error(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "network": {"httpsPorts": [49983]}}), 400, "invalid_request")
    error(call("POST", "/sandboxes", {"templateID": TEMPLATE, "secure": False}), 403, "forbidden")
    error(call("POST", f"/sandboxes/{box['sandboxID']}/fork", {"count": 101}), 400, "invalid_request")
    if os.environ.get("HUTCH_WEB") != "apache":  # which has files for its own errors, in one shape
        error(call("POST", "/v2/sandboxes", b" " * (2 << 20)), 413, "too_large")


@check("ports: not public when the network says so")
def _():
    made = js(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "timeout": 300, "network": {
        "allowPublicTraffic": False, "maskRequestHost": "a.example:${PORT}", "httpsPorts": [8443]}}))
    try:
        assert re.fullmatch("[0-9a-f]{64}", made["trafficAccessToken"]), made
        n = js(call("GET", "/sandboxes/" + made["sandboxID"]))["network"]
        same((n["allowPublicTraffic"], n["maskRequestHost"], n["httpsPorts"]), (False, "a.example:${PORT}", [8443]))
        host = {"Host": f"8080-{made['sandboxID']}.{made['domain']}"}
        same(call("GET", "/", headers=host, key=None)[0], 403)
        same(call("GET", "/", headers=dict(host, **{"e2b-traffic-access-token": made["trafficAccessToken"]}), key=None)[0], 502)
    finally:
        call("DELETE", "/sandboxes/" + made["sandboxID"])


@check("wake: traffic wakes what was paused here when autoResume says so, and only then")
def _():
    error_of = (502, "capsule_paused")
    call("POST", f"/sandboxes/{box['sandboxID']}/pause", {})
    a = start(box, {"process": {"cmd": "/bin/true"}})
    same((a[0], js(a)["error_code"]), error_of)
    same(call("POST", f"/sandboxes/{box['sandboxID']}/resume", {"timeout": 600})[0], 201)
    made = js(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "timeout": 300, "autoPause": True, "autoResume": {"enabled": True}}))
    try:
        same(js(call("GET", "/sandboxes/" + made["sandboxID"]))["lifecycle"], {"onTimeout": "pause", "autoResume": True})
        same(call("POST", f"/sandboxes/{made['sandboxID']}/timeout", {"timeout": 0})[0], 204)
        same(js(call("GET", "/sandboxes/" + made["sandboxID"]))["state"], "paused")
        a = start(made, {"process": {"cmd": "/bin/echo", "args": ["awake"]}})
        same((a[0], frames(a[2])[-1]), (200, (2, {})))
        same(js(call("GET", "/sandboxes/" + made["sandboxID"]))["state"], "running")
    finally:
        same(call("DELETE", "/sandboxes/" + made["sandboxID"])[0], 204)


@check("autoPauseMemory: false: its time over, it keeps the disk alone")
def _():
    made = js(call("POST", "/v2/sandboxes", {"templateID": TEMPLATE, "timeout": 300, "autoPause": True, "autoPauseMemory": False}))
    boot = {"process": {"cmd": "/bin/cat", "args": ["/proc/sys/kernel/random/boot_id"]}}
    try:
        first = frames(start(made, boot)[2])[1]
        same(call("POST", f"/sandboxes/{made['sandboxID']}/timeout", {"timeout": 1})[0], 204)
        for _ in range(400):
            if js(call("GET", "/sandboxes/" + made["sandboxID"]))["state"] == "paused":
                break
            time.sleep(0.3)
        a = call("POST", f"/v2/sandboxes/{made['sandboxID']}/connect", {"timeout": 300})
        same(a[0], 201)
        assert frames(start(made, boot)[2])[1] != first, "the same boot"
    finally:
        same(call("DELETE", "/sandboxes/" + made["sandboxID"])[0], 204)


@check("end: now by a timeout of 0, or by a kill; the second is 404")
def _():
    same(call("POST", f"/sandboxes/{box['sandboxID']}/timeout", {"timeout": 0})[0], 204)
    error(call("DELETE", "/sandboxes/" + box["sandboxID"]), 404, "not_found")
    error(call("POST", f"/v2/sandboxes/{box['sandboxID']}/connect", {"timeout": 10}), 404, "not_found")
    a = start(box, {"process": {"cmd": "/bin/true"}})
    same((a[0], js(a)["message"], js(a)["sandboxId"]), (502, "The sandbox was not found", box["sandboxID"]))


sys.exit(1 if failed else 0)
