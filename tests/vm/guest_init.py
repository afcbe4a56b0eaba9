"""guest_init.py - checks of the guest agent: before and at init."""
import base64
import json

from guest_lib import F, P, TOKEN, check, has, same


@check("agent")
def health_needs_no_token(a):
    status, headers, _ = a.call("GET", "/health", headers={"x-access-token": None, "x-hutch-nonce": "n1"})
    same(headers["x-hutch-nonce"], "n1")
    same((status, "x-hutch-version" in headers, "x-hutch-epoch" in headers), (204, True, False))


@check("agent")
def nothing_works_before_init(a):
    same(a.call("GET", "/envs")[0], 503)
    same(a.rpc(P + "List", {}), (503, {"code": "unavailable", "message": "the capsule is not ready yet"}))
    same(a.call("GET", "/files?path=/etc/passwd")[0], 503)


@check("agent")
def a_bad_init_is_refused(a):
    for bad in ({"accessToken": None}, {"accessToken": ""}, {"accessToken": 7}, {"epoch": -1}, {"epoch": "x"},
                {"epoch": None}, {"envVars": {"A": 1}}, {"envVars": {"A=B": "1"}}, {"envVars": []},
                {"machineId": "xyz"}, {"entropy": "***"}, {"entropy": "A" * 2000}, {"hostname": "a b"},
                {"timestamp": "yesterday"}, {"timestamp": "2026-11-21T02:00:00.312+0:0"}, {"timestamp": {}}):
        status, _, body = a.init(**bad)
        same(status, 400, f"status of {bad}")
        same(json.loads(body)["code"], 400)
    for body in (b"", b"[]", b"{", b"\xff", b'{"epoch":1,"epoch":2}'):
        same(a.call("POST", "/init", body)[0], 400)
    same(a.call("POST", "/init", b"{" + b" " * (1 << 20) + b"}")[0], 413)
    same(a.call("GET", "/envs")[0], 503)


@check("agent")
def init_opens_the_agent(a):
    a.epoch = 3
    status, headers, _ = a.init(envVars={"A": "of the capsule", "B": "b"}, timestamp="2026-11-21T12:00:00.5Z",
                                entropy=base64.b64encode(b"e" * 64).decode(), capsuleId="cl-1", unknown=[1])
    same(status, 204)
    same(headers["x-envd-version"], "0.6.13")
    same(a.call("GET", "/health")[1]["x-hutch-epoch"], "3")
    envs = json.loads(a.call("GET", "/envs")[2])
    same(envs, {"A": "of the capsule", "B": "b", "E2B_SANDBOX": "true", "HUTCH": "true", "E2B_SANDBOX_ID": "1",
                "HUTCH_CAPSULE_ID": "cl-1"})


@check("agent")
def an_epoch_is_taken_once(a):
    same(a.init(envVars={"A": "again"})[0], 204)
    same(json.loads(a.call("GET", "/envs")[2])["A"], "of the capsule")
    status, _, body = a.init(epoch=2)
    same(status, 409)
    has(body.decode(), "epoch 2 is past")


@check("agent")
def the_token_is_asked_for(a):
    for token in (None, "", "token", TOKEN + "x", TOKEN[:-1]):
        headers = {"x-access-token": token}
        same(a.call("GET", "/envs", headers=headers)[0], 401)
        same(a.call("POST", "/files?path=/x", b"x", headers)[0], 401)
        same(a.rpc(P + "List", {}, x_access_token=token)[1]["code"], "unauthenticated")
    status, _, body = a.call("GET", "/envs", headers={"x-access-token": None})
    same((status, json.loads(body)["code"]), (401, 401))


@check("agent")
def unknown_calls_are_named_so(a):
    same(a.call("GET", "/nothing")[0], 404)
    same(a.call("DELETE", "/files")[0], 405)
    same(a.rpc(P + "Dance", {}), (501, {"code": "unimplemented", "message": "no such method"}))


@check("agent")
def content_types_are_checked(a):
    same(a.call("POST", P + "List", b"{}", {"content-type": "text/plain"})[0], 415)
    same(a.call("POST", P + "Start", b"{}", {"content-type": "application/json"})[0], 415)
    same(a.call("POST", P + "List", b"{}", {"content-type": "application/json; charset=utf-8"})[0], 200)


@check("agent")
def metrics_have_numbers(a):
    m = json.loads(a.call("GET", "/metrics")[2])
    for name in ("ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "mem_cache", "mem_total_mib", "mem_used_mib",
                 "disk_used", "disk_total"):
        if not isinstance(m[name], (int, float)) or m[name] < 0:
            raise AssertionError(f"{name} is {m[name]!r}")
