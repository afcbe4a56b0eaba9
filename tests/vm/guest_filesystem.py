"""guest_filesystem.py - checks of the guest agent: filesystem.Filesystem."""
import base64
import os
import pwd
import re

from guest_lib import F, ME, Skip, check, has, same
from guest_files import put


@check("agent")
def stat_shows_entries(a):
    d = f"{a.dir}/st"
    os.mkdir(d)
    open(d + "/f", "w").write("12345")
    os.chmod(d + "/f", 0o4751)
    os.symlink("f", d + "/l")
    os.symlink("gone", d + "/b")
    os.mkfifo(d + "/p")
    e = a.ok(F + "Stat", {"path": d + "/f"})["entry"]
    same({k: e[k] for k in ("name", "type", "path", "size", "mode", "permissions", "owner")},
         {"name": "f", "type": "FILE_TYPE_FILE", "path": d + "/f", "size": "5", "mode": 0o4751,
          "permissions": "urwxr-x--x", "owner": ME.pw_name})
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", e["modifiedTime"]):
        raise AssertionError(e["modifiedTime"])
    e = a.ok(F + "Stat", {"path": d})["entry"]
    same((e["type"], e["permissions"][0]), ("FILE_TYPE_DIRECTORY", "d"))
    e = a.ok(F + "Stat", {"path": d + "/l"})["entry"]
    same((e["type"], e["mode"], e["permissions"], e["symlinkTarget"]), ("FILE_TYPE_FILE", 0o4751, "Lrwxrwxrwx", "f"))
    e = a.ok(F + "Stat", {"path": d + "/b"})["entry"]
    same(("type" in e, e["symlinkTarget"]), (False, "gone"))
    e = a.ok(F + "Stat", {"path": d + "/p"})["entry"]
    same(("type" in e, e["kind"], e["permissions"][0]), (False, "fifo", "p"))
    same(a.ok(F + "Stat", {"path": "/tmp/../"})["entry"]["path"], "/")
    same(a.ok(F + "Stat", {"path": "~"})["entry"]["path"], os.path.normpath(ME.pw_dir))
    same(a.rpc(F + "Stat", {"path": d + "/none"})[1]["code"], "not_found")
    for bad in ({"path": 1}, {"path": "~x"}, {"path": "/" + "x" * 5000}):
        same(a.rpc(F + "Stat", bad)[0], 400)


@check("agent")
def directories_are_made(a):
    d = f"{a.dir}/mk/a/b"
    same(a.ok(F + "MakeDir", {"path": d})["entry"]["type"], "FILE_TYPE_DIRECTORY")
    same(oct(os.stat(d).st_mode & 0o777), "0o755")
    same(a.rpc(F + "MakeDir", {"path": d})[1]["code"], "already_exists")
    open(d + "/f", "w").close()
    same(a.rpc(F + "MakeDir", {"path": d + "/f"})[1]["code"], "invalid_argument")
    same(a.rpc(F + "MakeDir", {"path": d + "/f/g"})[1]["code"], "invalid_argument")


@check("agent")
def moves(a):
    d = f"{a.dir}/mv"
    os.mkdir(d)
    open(d + "/a", "w").write("a")
    same(a.ok(F + "Move", {"source": d + "/a", "destination": d + "/x/y/b"})["entry"]["path"], d + "/x/y/b")
    open(d + "/c", "w").write("c")
    answer = a.rpc(F + "Move", {"source": d + "/c", "destination": d + "/x/y/b", "overwrite": False})
    same(answer[1]["code"], "already_exists")
    a.ok(F + "Move", {"source": d + "/c", "destination": d + "/x/y/b"})
    same(open(d + "/x/y/b").read(), "c")
    same(a.rpc(F + "Move", {"source": d + "/none", "destination": d + "/z"})[1]["code"], "not_found")
    same(a.rpc(F + "Move", {"source": d + "/x", "destination": d + "/x/y/z"})[1]["code"], "invalid_argument")


@check("agent")
def removals(a):
    d = f"{a.dir}/rm"
    os.makedirs(d + "/a/b/c")
    for n in range(300):
        open(f"{d}/a/b/{n}", "w").close()
    os.mkdir(a.dir + "/kept")
    open(a.dir + "/kept/f", "w").close()
    os.symlink(a.dir + "/kept", d + "/a/link")
    same(a.ok(F + "Remove", {"path": d}), {})
    same((os.path.exists(d), os.path.exists(a.dir + "/kept/f")), (False, True))
    same(a.ok(F + "Remove", {"path": d}), {})
    same(a.rpc(F + "Remove", {"path": d, "must_exist": True})[1]["code"], "not_found")
    same(a.rpc(F + "Remove", {"path": "/"})[1]["code"], "invalid_argument")
    same(a.rpc(F + "Remove", {"path": "/tmp/.."})[1]["code"], "invalid_argument")


@check("agent")
def listings(a):
    d = f"{a.dir}/ls"
    os.makedirs(d + "/b/deep")
    open(d + "/a", "w").close()
    open(d + "/b/inner", "w").close()
    os.symlink(d, d + "/b/loop")
    names = lambda **m: [e["path"][len(d):] for e in a.ok(F + "ListDir", {"path": d, **m})["entries"]]
    same(names(), ["/a", "/b"])
    same(names(depth=0), ["/a", "/b"])
    same(names(depth=2), ["/a", "/b", "/b/deep", "/b/inner", "/b/loop"])
    same(names(depth=32), ["/a", "/b", "/b/deep", "/b/inner", "/b/loop"])
    answer = a.ok(F + "ListDir", {"path": d, "depth": 2, "limit": 3})
    same((len(answer["entries"]), answer["truncated"]), (3, True))
    same(a.ok(F + "ListDir", {"path": d + "/b/deep"}), {})
    same(a.rpc(F + "ListDir", {"path": d + "/none"})[1]["code"], "not_found")
    same(a.rpc(F + "ListDir", {"path": d + "/a"})[1]["code"], "invalid_argument")
    for bad in ({"depth": 33}, {"depth": -1}, {"depth": "x"}, {"limit": 0}):
        same(a.rpc(F + "ListDir", {"path": d, **bad})[0], 400)
    if "/" not in [e["path"] for e in a.ok(F + "ListDir", {"path": "/", "depth": 1})["entries"]]:
        has([e["path"] for e in a.ok(F + "ListDir", {"path": "/"})["entries"]], "/etc")


@check("agent")
def work_is_done_as_the_user(a):
    if os.geteuid() != 0:
        raise Skip("needs root")
    os.chmod(a.dir, 0o755)
    secret, shared = f"{a.dir}/secret", f"{a.dir}/shared"
    put(a, secret, b"s", "&mode=600")
    os.mkdir(shared)
    os.chmod(shared, 0o777)
    auth = {"authorization": "Basic " + base64.b64encode(b"nobody:").decode()}
    same(a.call("GET", f"/files?path={secret}&username=nobody")[0], 403)
    same(put(a, secret, b"x", "&username=nobody")[0], 403)
    same(put(a, f"{a.dir}/new", b"x", "&username=nobody")[0], 403)
    same(put(a, f"{shared}/a/b", b"x", "&username=nobody")[0], 200)
    same({os.stat(p).st_uid for p in (f"{shared}/a", f"{shared}/a/b")}, {pwd.getpwnam("nobody").pw_uid})
    same(a.rpc(F + "Remove", {"path": secret}, **auth)[1]["code"], "permission_denied")
    same(a.rpc(F + "ListDir", {"path": "/root"}, **auth)[1]["code"], "permission_denied")
    same(put(a, f"{shared}/r", b"x", "&username=nobody&owner=root")[0], 403)
    same(put(a, f"{shared}/r", b"x", "&owner=nobody")[0], 200)
    has(a.sh("id; cat " + secret, headers=auth, process={"cwd": "/"}), "nobody")
    has(a.sh("cat " + secret, headers=auth, process={"cwd": "/"}), "ermission denied")
    same(os.stat(secret).st_uid, 0)
