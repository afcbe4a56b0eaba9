"""hosts_scaling.py - GET, PUT /v1/admin/scaling (spec 02 §5.8) before real hosts: a case of hosts_test.py, whose machines it uses."""
import json

from hosts_net import call, sql, wait_for

PATH = "/v1/admin/scaling"
POOL = {"template": "minimal", "shape": {"vcpus": 1, "memory_mb": 256}, "hot": 1, "waiting": 1}


def info(m):
    return json.loads(m.api("GET", "/info")[1])


def version(m):
    return info(m)["scaling"]


def count(m):
    """How many hot clones and waiting machines stand at the machine, none in the making."""
    pools = [p for name, p in info(m)["pools"].items() if name.startswith("minimal@") and name.endswith("/1x256")]
    return [(p["ready"], p["waiting"]) for p in pools if not p["making"]]


def uuid_of(wire):
    return f"{int(wire.split('-', 1)[1], 36):032x}"


def scaling(a, b, admin):
    def get():
        s, got = call("GET", PATH, **admin)
        assert s == 200, got
        return got

    def put(**body):
        s, got = call("PUT", PATH, {"pools": [], **body}, **admin)
        assert s == 200 and got == {**get(), **{k: got[k] for k in ("hosts", "hosts_wanted", "hosts_behind", "alerts")}}, (s, got)
        return got

    def events(kind, rule):
        return int(sql(f"SELECT count(*) FROM events WHERE type = 'alert.{kind}' AND data->>'rule' = '{rule}'"))

    def alert(rule):
        return [x for x in get()["alerts"] if x["rule"] == rule and x["triggered_at"]]

    def wanted():
        return call("GET", "/v1/admin/cluster", **admin)[1]["hosts_wanted"]

    try:
        reaches_hosts(a, b, admin, get, put)
        # too few hosts, then enough
        got = put(min_hosts=50, max_hosts=60)
        assert got["hosts_wanted"] == wanted() == 50 and got["generation"] == get()["generation"], got
        wait_for("the alert of too few hosts", 120, lambda: alert("hosts_below_min"))
        assert events("triggered", "hosts_below_min") == events("resolved", "hosts_below_min") + 1
        got = put(max_hosts=1)
        assert got["hosts_wanted"] <= 1 and wanted() <= 1, got
        wait_for("its end", 120, lambda: not get()["alerts"] and
                 events("triggered", "hosts_below_min") == events("resolved", "hosts_below_min") > 0)
        # no host takes capsules: no room
        for m in (a, b):
            assert call("PATCH", "/v1/hosts/" + m.id, {"schedulable": False}, **admin)[0] == 200
        wait_for("the alert of no room", 120, lambda: alert("no_room"))
        assert sql("SELECT data->>'severity' FROM events WHERE type = 'alert.triggered' AND data->>'rule' = 'no_room' LIMIT 1") == "critical"
        for m in (a, b):
            assert call("PATCH", "/v1/hosts/" + m.id, {"schedulable": True}, **admin)[0] == 200
        wait_for("its end", 120, lambda: not alert("no_room") and events("triggered", "no_room") == events("resolved", "no_room") > 0)
    finally:
        call("PUT", PATH, {"pools": []}, **admin)
    wait_for("both machines are without pools", 120, lambda: count(a) == count(b) == [(0, 0)])


def reaches_hosts(a, b, admin, get, put):
    before, had = get(), version(b)
    b.cut()
    try:
        put(pools=[POOL], warm_memory_percent=31, generation=before["generation"])
        wait_for("one hot clone, one machine that waits at a", 240, lambda: count(a) == [(1, 1)])
        assert version(b) == had != version(a)      # b missed it
    finally:
        b.heal()
    wait_for("the same at b, which missed it", 240, lambda: version(b) == version(a) and count(b) == [(1, 1)])
    wait_for("nobody is behind", 120, lambda: get()["hosts_behind"] == 0)
    got = get()
    assert got["pools"] == [POOL] and got["warm_memory_percent"] == 31 and got["generation"] == before["generation"] + 1, got
    assert info(a)["warm_memory_mb"] in range(*(lambda mb: (mb * 31 // 100 - 31, mb * 31 // 100 + 1))(info(a)["memory_mb"]))
    s, seen = call("GET", f"/v1/hosts/{a.id}/metrics", **admin)
    assert s == 200 and [(p["want_ready"], p["want_waiting"]) for p in seen["pools"] if p["memory_mb"] == 256] == [(1, 1)], seen["pools"]
    assert sql("SELECT metadata->'changed' FROM audit_logs WHERE resource_type = 'platform' AND action = 'scaling' "
               "ORDER BY seq DESC LIMIT 1") == '["pools", "warm_memory_percent"]'
    # the same again is no change; one that somebody else has replaced is refused
    assert put(pools=[POOL], warm_memory_percent=31)["generation"] == got["generation"]
    s, no = call("PUT", PATH, {"pools": [], "generation": before["generation"]}, **admin)
    assert s == 409 and no["error"]["code"] == "conflict" and get()["pools"] == [POOL], (s, no)
    # a host that forgot it hears it again; a team's own goes by its own configuration
    assert a.api("DELETE", "/scaling")[0] == 204
    wait_for("a holds it again", 120, lambda: version(a) == version(b) != "" and count(a) == [(1, 1)])
    sql(f"UPDATE hosts SET type = 'byoc', team_id = (SELECT id FROM teams LIMIT 1) WHERE id = '{uuid_of(b.id)}'")
    try:
        wait_for("a team's own host is as it is configured", 120, lambda: version(b) == "" and count(b) == [(0, 0)])
    finally:
        sql(f"UPDATE hosts SET type = 'regular', team_id = NULL WHERE id = '{uuid_of(b.id)}'")
    wait_for("the platform's again", 120, lambda: version(b) == version(a))
