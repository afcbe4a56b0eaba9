"""guest_files.py - checks of the guest agent: /files."""
import json
import os
import subprocess

from guest_lib import F, Skip, check, has, same, until


def put(a, path, data, query="", **headers):
    return a.call("POST", f"/files?path={path}{query}", data, {"content-type": "application/octet-stream", **headers})


@check("agent")
def a_file_goes_and_comes(a):
    data = os.urandom(20 << 20)
    path = f"{a.dir}/deep/er/file.bin"
    status, _, body = put(a, path, data)
    same((status, json.loads(body)), (200, [{"name": "file.bin", "path": path, "type": "file"}]))
    same(oct(os.stat(path).st_mode), "0o100644")
    status, headers, got = a.call("GET", f"/files?path={path}")
    same((status, got == data), (200, True))
    same((headers["content-length"], headers["accept-ranges"]), (str(len(data)), "bytes"))
    same(headers["content-disposition"], "inline; filename=file.bin")
    has(headers["last-modified"], "gmt")
    same(os.listdir(f"{a.dir}/deep/er"), ["file.bin"])


@check("agent")
def ranges(a):
    put(a, f"{a.dir}/r", b"0123456789")
    for text, status, part in (("bytes=2-4", 206, b"234"), ("bytes=7-", 206, b"789"), ("bytes=-3", 206, b"789"),
                               ("bytes=0-99", 206, b"0123456789"), ("bytes=-99", 206, b"0123456789"),
                               ("bytes=10-", 416, b""), ("bytes=-0", 416, b""), ("bytes=4-2", 200, b"0123456789"),
                               ("bytes=1-2,4-5", 200, b"0123456789"), ("bytes=x", 200, b"0123456789"),
                               ("bytes=99999999999999999999-", 200, b"0123456789")):
        got = a.call("GET", f"/files?path={a.dir}/r", headers={"range": text})
        same((got[0], got[2]), (status, part), text)
    same(a.call("GET", f"/files?path={a.dir}/r", headers={"range": "bytes=2-4"})[1]["content-range"], "bytes 2-4/10")


@check("agent")
def empty_files(a):
    same(put(a, f"{a.dir}/empty", b"")[0], 200)
    status, headers, body = a.call("GET", f"/files?path={a.dir}/empty")
    same((status, headers["content-length"], body), (200, "0", b""))


@check("agent")
def files_of_unknown_size(a):
    status, _, body = a.call("GET", "/files?path=/proc/self/status")
    same(status, 200)
    has(body.decode(), "hutch-guest")


@check("agent")
def what_cannot_be_read(a):
    os.mkfifo(f"{a.dir}/fifo")
    same(a.call("GET", f"/files?path={a.dir}")[0], 400)
    same(a.call("GET", f"/files?path={a.dir}/fifo")[0], 400)
    same(a.call("GET", f"/files?path={a.dir}/none")[0], 404)
    same(a.call("GET", f"/files?path=~nobody/x")[0], 400)
    same(a.call("GET", f"/files?path=/etc/hostname&username=nobody-here")[0], 401)
    same(a.call("GET", f"/files?path=/{'x' * 5000}")[0], 400)
    same(a.call("GET", f"/files?path=%zz")[0], 400)


@check("agent")
def what_cannot_be_written(a):
    os.mkdir(f"{a.dir}/there")
    open(f"{a.dir}/plain", "w").close()
    same(put(a, f"{a.dir}/there", b"x")[0], 400)
    same(put(a, f"{a.dir}/fifo", b"x")[0], 400)
    same(put(a, f"{a.dir}/plain/below", b"x")[0], 400)
    same(put(a, "", b"x")[0], 400)
    same(put(a, f"{a.dir}/x", b"x", "&username=nobody-here")[0], 401)
    same(put(a, f"{a.dir}/x", b"x", "&mode=9")[0], 400)
    same(put(a, f"{a.dir}/x", b"x", "&mtime=x")[0], 400)
    same(put(a, f"{a.dir}/x", b"x", **{"content-encoding": "br"})[0], 415)
    same(put(a, f"{a.dir}/x", b"x", **{"content-type": "text/plain"})[0], 415)
    same(put(a, f"{a.dir}/x", os.urandom(1 << 20), "&username=nobody-here")[0], 401)
    same(os.path.exists(f"{a.dir}/x"), False)
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])


@check("agent")
def modes_and_conditions(a):
    path = f"{a.dir}/moded"
    put(a, path, b"1", "&mode=750&mtime=1000000000")
    st = os.stat(path)
    same((oct(st.st_mode & 0o7777), int(st.st_mtime)), ("0o750", 1000000000))
    put(a, path, b"2")
    same(oct(os.stat(path).st_mode & 0o7777), "0o750")
    same(put(a, path, b"3", "&if_absent=1")[0], 409)
    same(open(path).read(), "2")
    os.symlink(path, f"{a.dir}/link")
    put(a, f"{a.dir}/link", b"4")
    same((open(path).read(), os.path.islink(f"{a.dir}/link")), ("4", True))


@check("agent")
def metadata_is_kept(a):
    path = f"{a.dir}/meta"
    try:
        open(path, "w").close()
        os.setxattr(path, "user.e2b.old", b"x")
    except OSError:
        raise Skip("no extended attributes here")
    body = json.loads(put(a, path, b"x", **{"X-Metadata-Color": "blue", "X-Metadata-Size": "big \\ \""})[2])
    same(body[0]["metadata"], {"color": "blue", "size": 'big \\ "'})
    same(a.ok(F + "Stat", {"path": path})["entry"]["metadata"], {"color": "blue", "size": 'big \\ "'})


def multipart(parts, boundary="XbX"):
    body = b"preamble\r\n"
    for name, filename, data in parts:
        f = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{f}\r\nContent-Type: a/b\r\n\r\n'.encode()
        body += data + b"\r\n"
    return body + f"--{boundary}--\r\nepilogue".encode()


def post_parts(a, query, parts, body=None):
    return a.call("POST", "/files" + query, multipart(parts) if body is None else body,
                  {"content-type": "multipart/form-data; boundary=XbX"})


@check("agent")
def multipart_uploads(a):
    tricky = b"\r\n--Xb\r\n--XbY\r\n-" * 50000 + os.urandom(300000)
    parts = [("note", None, b"ignored"), ("file", f"{a.dir}/m/one", tricky), ("file", f"{a.dir}/m/two", b"")]
    status, _, body = post_parts(a, "", parts)
    same((status, [e["name"] for e in json.loads(body)]), (200, ["one", "two"]))
    same((open(f"{a.dir}/m/one", "rb").read() == tricky, open(f"{a.dir}/m/two").read()), (True, ""))
    same(post_parts(a, f"?path={a.dir}/m/three", [("file", "whatever", b"3")])[0], 200)
    same(open(f"{a.dir}/m/three").read(), "3")


@check("agent")
def bad_multipart(a):
    one = ("file", f"{a.dir}/bm", b"1")
    same(post_parts(a, "", [one, one])[0], 400)
    same(post_parts(a, f"?path={a.dir}/bm2", [one, one])[0], 400)
    same(post_parts(a, "", [("file", None, b"1")])[0], 400)
    same(post_parts(a, "", [("other", "x", b"1")])[0], 400)
    same(post_parts(a, "", [])[0], 400)
    for cut in (b"", b"--XbX", b"--XbX\r\n", multipart([one])[:-14], b"--XbXjunk\r\n\r\n",
                b"--XbX\r\n" + b"h" * 20000, b"nothing at all"):
        same(post_parts(a, "", None, cut)[0], 400, f"status of {cut[:30]}")
    same(a.call("POST", "/files", b"x", {"content-type": "multipart/form-data"})[0], 400)
    same(a.call("POST", "/files", b"x", {"content-type": "multipart/form-data; boundary=" + "b" * 90})[0], 400)
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])


@check("agent")
def a_lost_upload_leaves_the_old_file(a):
    path = f"{a.dir}/lost"
    open(path, "w").write("old")
    p = subprocess.Popen(a.curl(f"/files?path={path}", {"content-type": "application/octet-stream"}, "-T", "-", "-X",
                                "POST"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    p.stdin.write(b"n" * 300000)
    p.stdin.flush()
    until("its file", lambda: len([n for n in os.listdir(a.dir) if n.startswith(".hutch")]) == 1)
    p.kill()
    p.wait()
    until("that it goes", lambda: not [n for n in os.listdir(a.dir) if n.startswith(".hutch")])
    same(open(path).read(), "old")


@check("agent")
def a_full_disk_is_507(a):
    small = f"{a.dir}/small"
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], stderr=subprocess.DEVNULL).returncode:
        raise Skip("may not mount")
    try:
        put(a, small + "/f", b"old")
        status, _, body = put(a, small + "/f", b"n" * (3 << 20))
        same((status, json.loads(body)["code"]), (507, 507))
        same((open(small + "/f").read(), os.listdir(small)), ("old", ["f"]))
    finally:
        subprocess.run(["umount", small])


@check("agent")
def names_of_all_kinds(a):
    for name, quoted in (("a b+c", "a%20b%2Bc"), ("naïve ☃", "na%C3%AFve+%E2%98%83"), ('q"\\', "q%22%5C"), ("new\nline", "new%0Aline")):
        same(put(a, f"{a.dir}/{quoted}", name.encode())[0], 200)
        same(open(f"{a.dir}/{name}").read(), name)
        same(a.call("GET", f"/files?path={a.dir}/{quoted}")[2], name.encode())
    same(a.call("GET", f"/files?path={a.dir}/na%C3%AFve+%E2%98%83")[1]["content-disposition"],
         "inline; filename*=utf-8''na%c3%afve%20%e2%98%83")
