#!/usr/bin/env python3
"""e2b_templates.py - a team's own templates through the E2B protocol: who sees, starts, shows and deletes them (spec 06 §2, §6).

Needs a running instance with an agent (tests/lib/instance env) whose image minimal is there: it is linked under one more name.
"""
import os
import shutil
import subprocess
from urllib.parse import quote

from crew import RUN, Person, audit, check, end, sql, uuid_of

IMAGES = os.environ["HUTCH_RUN"] + "/images"
NAME = "shown-" + RUN


def ctl(*words):
    return subprocess.run([os.environ["HUTCH_BUILD"] + "/cli/hutchctl", "-c", os.environ["HUTCH_CONF"], *words], capture_output=True, text=True)


def register(team, name=NAME):
    return ctl("template", "add", "--name", name, "--dir", f"{IMAGES}/{NAME}", *(["--team", team] if team else []))


def path(name, version=""):
    return f"{version}/templates/{quote(name, safe='')}"


def error(a, status, code):
    return a.status == status and a.json["code"] == status and a.json["error_code"] == code


def slug(person):
    return sql(f"SELECT slug FROM teams WHERE id = '{uuid_of(person.team)}'")


def limits(person):
    sql(f"INSERT INTO quotas SELECT '{uuid_of(person.team)}', 5, 8, 8192, 65536 ON CONFLICT DO NOTHING")


def nobody_elses(owner, other, full, wire_id):
    """As long as it is not shown it is to another team as one that is not there."""
    for name in (NAME, full, full + ":default", wire_id):
        check(f"not shown: {name.split('-' + RUN)[0][:30]}: 404 as what is missing", other("GET", path(name)).bare() == other("GET", path("x" + name[1:])).bare()
              and error(other("GET", path(name)), 404, "not_found"), other("GET", path(name)))
    for a in (other("PATCH", path(full), {"public": True}), other("DELETE", path(full)), other("GET", "/templates/aliases/" + quote(full, safe="")),
              other("POST", "/v2/sandboxes", {"templateID": full}), other("POST", "/v2/sandboxes", {"templateID": wire_id})):
        check("not shown: not by any route", error(a, 404, "not_found"), a)
    a = other("POST", "/v1/capsules", {"template": full})
    check("not shown: nor by /v1", a.status == 404 and a.code == "not_found", a)
    check("not shown: in no list", all(t["aliases"] != [NAME] for t in other("GET", "/templates").json))


def shown(owner, other, member, full, wire_id):
    a = owner("PATCH", path(NAME, "/v2"), {"public": True})
    check("shown: 200 and its names", a.status == 200 and a.json == {"names": [full]}, a)
    again = owner("PATCH", path(wire_id), {"public": True})
    check("shown again, by id, on the old path: the same, and no second row of audit", again.json == a.json
          and audit(owner.team, "resource_type = 'template'") == ["template/publish"], again)
    row = sql(f"SELECT resource_id, metadata->>'visibility' FROM audit_logs WHERE team_id = '{uuid_of(owner.team)}' AND resource_type = 'template'")
    check("the row of audit names it", row == f"{NAME}|public", row)
    got = sql(f"SELECT data::text FROM events WHERE team_id = '{uuid_of(owner.team)}' AND type = 'template.published'")
    check("an event, with what it is", f"tpl-{wire_id}" in got and '"version": 1' in got and '"visibility": "public"' in got, got)
    a = other("GET", path(full))
    check("another team finds it by its name space", a.status == 200 and a.json["public"] and a.json["names"] == [full] and len(a.json["builds"]) == 1
          and a.json["spawnCount"] == 0, a)
    check("and what the name means", other("GET", "/templates/aliases/" + quote(full, safe="")).json == {"templateID": wire_id, "public": True})
    check("but by its name space alone", all(error(other("GET", path(n)), 404, "not_found") for n in (NAME, wire_id, full + ":v2", slug(other) + "/" + NAME)))
    check("its list stays its own", all(t["aliases"] != [NAME] for t in other("GET", "/v2/templates").json))
    for a in (other("PATCH", path(full), {"public": False}), other("DELETE", path(full))):
        check("it changes nothing of it", error(a, 403, "forbidden"), a)
    for a in (member("PATCH", path(NAME), {"public": False}), member("DELETE", path(NAME))):
        check("a member of the team neither", error(a, 403, "forbidden"), a)
    check("bad input", all(error(owner("PATCH", path(NAME), b), 400, "invalid_request") for b in ({}, {"public": "yes"}, {"public": None})))
    for a in (owner("PATCH", path("minimal"), {"public": False}), owner("DELETE", path("platform/minimal"))):
        check("what is the platform's is not a team's", error(a, 403, "forbidden"), a)


def started(other, full, wire_id):
    """Capsules of the other team, made of it while it is shown; the first is handed on."""
    a = other("POST", "/v2/sandboxes", {"templateID": full, "timeout": 600})
    check("another team starts it", a.status == 201 and (a.json["alias"], a.json["templateID"]) == (NAME, wire_id), a)
    v1 = other("POST", "/v1/capsules", {"template": full, "timeout_sec": 300})
    check("and through /v1", v1.status == 201 and v1.json["template"] == NAME, v1)
    if v1.status == 201:
        other("DELETE", f"/v1/capsules/{v1.json['id']}")
    return a.json["sandboxID"] if a.status == 201 else None


def gone(owner, other, full, box):
    a = owner("PATCH", path(NAME), {"public": False})
    check("shown no longer", a.status == 200 and error(other("GET", path(full)), 404, "not_found")
          and error(other("POST", "/v2/sandboxes", {"templateID": full}), 404, "not_found"), a)
    check("deleted", owner("DELETE", path(NAME)).status == 204)
    check("and gone", error(owner("GET", path(NAME)), 404, "not_found") and error(owner("DELETE", path(NAME)), 404, "not_found")
          and error(owner("POST", "/v2/sandboxes", {"templateID": NAME}), 404, "not_found"))
    rows = audit(owner.team, "resource_type = 'template'")
    check("audit has all of it", rows == ["template/publish", "template/unpublish", "template/delete"], rows)
    a = register(slug(other))
    check("another team has not the name while capsules of it live", a.returncode == 1 and "made of it" in a.stderr, a.stderr)
    if not box:
        return
    check("what runs of it sleeps", other("POST", f"/sandboxes/{box}/pause", {}).status == 204)
    a = other("POST", f"/sandboxes/{box}/connect", {"timeout": 60, "memory": False})
    check("and boots again", a.status == 201, a)
    check("and ends", other("DELETE", f"/sandboxes/{box}").status == 204)


def main():
    owner, other, member = Person("owner"), Person("other"), Person("member")
    member.into(owner, "member")
    limits(other)
    full = f"{slug(owner)}/{NAME}"
    shutil.copytree(f"{IMAGES}/minimal", f"{IMAGES}/{NAME}", copy_function=os.link)
    try:
        a = register(slug(owner))
        check("hutchctl makes a template of one team", a.returncode == 0, a.stderr)
        for team in (slug(other), None):
            a = register(team)
            check("a name that a team has is no other's", a.returncode == 1 and slug(owner) in a.stderr, a.stderr)
        a = ctl("template", "add", "--name", "minimal", "--dir", f"{IMAGES}/{NAME}", "--team", slug(other))
        check("nor the platform's a team's", a.returncode == 1 and "platform" in a.stderr, a.stderr)
        check("no team, no template", register("no-such-team").returncode == 1)
        a = owner("GET", path(NAME))
        check("the team has it", a.status == 200 and not a.json["public"] and a.json["names"] == [full], a)
        wire_id = a.json["templateID"]
        check("in its list, too", [t["templateID"] for t in member("GET", "/templates").json if t["names"] == [full]] == [wire_id])
        nobody_elses(owner, other, full, wire_id)
        shown(owner, other, member, full, wire_id)
        gone(owner, other, full, started(other, full, wire_id))
    finally:
        shutil.rmtree(f"{IMAGES}/{NAME}")
    end()


main()
