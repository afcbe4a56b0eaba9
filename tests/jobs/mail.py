#!/usr/bin/env python3
"""mail.py - mails are sent once, by SMTP with STARTTLS and AUTH or as files; every refusal has its consequence."""
import email
import email.policy
import glob
import os
import signal
import stat
import time
import uuid

from private import PLATFORM, Private, Report, wait_for, wire
from sink import Sink

p = Private(workers={"fast_slots": 0, "mail_slots": 2, "capsule_slots": 0, "tick_slots": 0},
            http={"public_url": "https://hutch.test"}, mail={"domain": "hutch.test", "from": "Hutch <noreply@hutch.test>"})
r = Report()


def quote(text):
    return "'" + text.replace("'", "''") + "'"


def add_mail(to, template="activate", name="Ada", klass="other", variables="{}", token=False, ring=True):
    """As mail_add() does, under the API's role. The job's id, or None when the mail is not wanted."""
    mail, token_id = str(uuid.uuid4()), str(uuid.uuid4())
    token_sql = "NULL, NULL"
    if token:
        p.sql("INSERT INTO one_time_tokens (token_hash, id, purpose, expires_at) VALUES (sha256('%s'), '%s', 'activation', "
              "now() + interval '30 minutes')" % (token_id, token_id))
        token_sql = "'%s', 'activation'" % token_id
    wanted = p.sql("SELECT email_insert('%s', '%s', %s, '%s', NULL, sha256(%s), %s, %s, %s, NULL)"
                   % (mail, template, quote(variables), klass, quote(to), quote(to), quote(name), token_sql), user="hutch_app")
    if wanted != "t":
        return None
    ref = wire("eml-", mail)
    return p.add_jobs("mail.send", 1, '{"email":"%s"}' % ref, queue="mail", unique=ref, ring=ring)[0]


def parse(raw):
    return email.message_from_bytes(raw, policy=email.policy.default)


def text_of(message, kind):
    return message.get_body((kind,)).get_content()


def job(j):
    return p.rows("SELECT state, attempts, error_code, extract(epoch FROM run_at - started_at) FROM jobs WHERE id = '%s'" % j)[0]


def mail_of(to):
    return p.rows("SELECT state, reason, smtp_code, sent_at IS NOT NULL FROM emails WHERE to_addr = %s ORDER BY created_at DESC LIMIT 1"
                  % quote(to))[0]


def again(j):
    p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE id = '%s' AND state = 'queued'" % j)


def rests(j, n):
    """Waits for the end of the n-th try; the next one comes when it is called."""
    wait_for(lambda: p.sql("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE id = '%s' AND state = 'queued' AND attempts = %d RETURNING 1"
                           % (j, n)), 15)


def files():
    j = add_mail("ada@example.org", token=True)
    r.check("without smtp.host a mail becomes a file", p.all_in([j], "succeeded", 10), job(j))
    found = glob.glob(p.dir + "/mail/*.eml")
    r.check("one file, mode 0600", len(found) == 1 and stat.S_IMODE(os.stat(found[0]).st_mode) == 0o600, found)
    m = parse(open(found[0], "rb").read())
    link = "https://hutch.test/activate#token="
    r.check("text and HTML, both with the link", m.get_content_type() == "multipart/alternative" and
            link in text_of(m, "plain") and link in text_of(m, "html"), m.as_string()[:600])
    r.check("headers", m["Message-ID"] == "<%s@hutch.test>" % wire("job-", j) and m["Auto-Submitted"] == "auto-generated" and
            m["X-Hutch-Template"] == "activate" and m["Subject"] == "Activate your Hutch account" and m["To"] == "ada@example.org",
            dict(m.items()))
    # the row is set back: a repeat writes the same link again
    os.unlink(found[0])
    p.sql("UPDATE emails SET state = 'queued', sent_at = NULL WHERE to_addr = 'ada@example.org'")
    p.sql("UPDATE jobs SET state = 'queued', finished_at = NULL, run_at = now(), announced_at = NULL WHERE id = '%s'" % j)
    p.all_in([j], "succeeded", 10)
    two = parse(open(glob.glob(p.dir + "/mail/*.eml")[0], "rb").read())
    r.check("a repeated mail carries the same link", text_of(two, "plain") == text_of(m, "plain"))
    token = text_of(m, "plain").split("#token=")[1].split()[0]
    dump = p.sql("SELECT (SELECT string_agg(e::text, '') FROM emails e) || (SELECT string_agg(j::text, '') FROM jobs j)")
    r.check("no token in the database", len(token) == 43 and token not in dump, token)


def hostile():
    name = "<script>alert(1)</script>\u202eابجد\r\nX-Evil: yes" + "x" * 3000
    j = add_mail("eve@example.org", "session_stolen", name, "notice",
                 '{"ip": "<b>1.2.3.4</b>", "agent": "a\\r\\nBcc: x@y.z", "time": "now & then"}')
    r.check("hostile values are sent", p.all_in([j], "succeeded", 10), job(j))
    raw = open(glob.glob(p.dir + "/mail/%s.eml" % wire("job-", j))[0], "rb").read()
    m = parse(raw)
    r.check("no header comes of them", m["X-Evil"] is None and m["Bcc"] is None and not m.defects, (m.keys(), m.defects))
    html = text_of(m, "html")
    r.check("HTML is escaped", "<script>" not in html and "&lt;script&gt;" in html and "&lt;b&gt;1.2.3.4" in html, html[:300])
    r.check("the text part is whole", "<script>alert(1)</script>\u202eابجد" in text_of(m, "plain") and "x" * 3000 in text_of(m, "plain"))
    r.check("no line is longer than 998 bytes", max(len(x) for x in raw.split(b"\r\n")) <= 998)


def smtp(sink, worker):
    p.conf["smtp"] = {"host": "localhost", "port": sink.port, "user": "hutch", "password_file": p.dir + "/smtp.pass",
                      "ca_file": p.dir + "/smtp.pem"}
    with open(p.dir + "/smtp.pass", "w") as f:
        f.write("pass word\n")
    p.write_conf()
    p.reload(worker, "mail")
    j = add_mail("bob@example.org")
    r.check("by SMTP", p.all_in([j], "succeeded", 15) and len(sink.of("bob@example.org")) == 1, job(j))
    got = sink.of("bob@example.org")[0]
    r.check("over TLS, logged in", got[2] and got[3])
    r.check("marked as sent, once", mail_of("bob@example.org") == ["sent", "", "250", "t"], mail_of("bob@example.org"))


def refusals(sink):
    rcpt = {k: add_mail(k + "@example.org") for k in ("r451", "r550", "d451", "d554", "cutonce")}
    wait_for(lambda: all(job(j)[2] for k, j in rcpt.items()), 20)
    for k in ("r451", "d451"):
        t = job(rcpt[k])
        r.check("%s: throttled, again in 30 s" % k, t[0] == "queued" and t[2] == "throttled" and 24 <= float(t[3]) < 55, t)
    r.check("r550: bounced, failed for good", job(rcpt["r550"])[0] == "failed" and mail_of("r550@example.org")[0] == "bounced", job(rcpt["r550"]))
    r.check("d554: bounced", job(rcpt["d554"])[0] == "failed" and mail_of("d554@example.org")[0] == "bounced", job(rcpt["d554"]))
    n = p.sql("SELECT count(*), min(until) > now() + interval '6 days', max(until) < now() + interval '8 days' FROM mail_suppressions")
    r.check("only the 550 at RCPT suppresses, for 7 days", n == "1|t|t", n)
    r.check("nothing goes to it then", add_mail("r550@example.org") is None and mail_of("r550@example.org")[:2] == ["suppressed", "suppressed"])
    again(rcpt["cutonce"])
    r.check("cut after DATA: once more, same Message-ID", p.all_in([rcpt["cutonce"]], "succeeded", 10) and
            len({parse(m[1])["Message-ID"] for m in sink.of("cutonce@example.org")}) == 1 and len(sink.of("cutonce@example.org")) == 2,
            len(sink.of("cutonce@example.org")))
    j = add_mail("cut@example.org")
    for n in (1, 2):
        rests(j, n)
        again(j)
    r.check("cut twice: no third one", p.all_in([j], "failed", 10) and len(sink.of("cut@example.org")) == 2, (job(j), len(sink.of("cut@example.org"))))


def our_fault(sink):
    sink.auth_code = 535
    j = add_mail("carol@example.org")
    rests(j, 1)
    r.check("535 at AUTH: again, nobody suppressed", job(j)[0] == "queued" and job(j)[2] == "mail_error" and
            p.sql("SELECT count(*) FROM mail_suppressions") == "1", job(j))
    sink.auth_code, sink.tls = 0, False
    again(j)
    rests(j, 2)
    r.check("no STARTTLS: nothing is sent in clear", job(j)[0] == "queued" and not sink.of("carol@example.org"), job(j))
    sink.tls = True
    sink.down()
    again(j)
    rests(j, 3)
    r.check("sink down: again", job(j)[0] == "queued", job(j))
    sink.up()
    again(j)
    r.check("then it arrives", p.all_in([j], "succeeded", 10) and len(sink.of("carol@example.org")) == 1, job(j))


def limits():
    got = [add_mail("dan@example.org", klass="anybody", ring=False) is not None for _ in range(7)]
    r.check("5 an hour of what anybody can cause", got == [True] * 5 + [False] * 2, got)
    r.check("more is recorded as throttled", mail_of("dan@example.org")[:2] == ["suppressed", "throttled"], mail_of("dan@example.org"))
    got = sum(add_mail("fay@example.org", ring=False) is not None for _ in range(32))
    r.check("30 an hour in all", got == 30, got)
    r.check("a security notice is never dropped", add_mail("fay@example.org", klass="notice", ring=False) is not None)
    p.sql("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE state = 'queued'")
    try:
        p.sql("SELECT count(*) FROM emails", user="hutch_app")
        r.check("the API's role cannot read mails", False, "it can")
    except RuntimeError as e:
        r.check("the API's role cannot read mails", "permission denied" in str(e), e)


def killed(sink, worker):
    js = [add_mail("k%d@example.org" % n) for n in range(20)]
    for _ in range(5):
        time.sleep(0.15)
        for pid in p.children(worker, "mail"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def settle():
        p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL, crashes = 0 WHERE state = 'queued' AND run_at > now() "
              "AND id = ANY('{%s}')" % ",".join(js))
        return p.states(js) == {"succeeded": 20}
    r.check("children killed: all mails arrive", wait_for(settle, 20, 0.3), p.states(js))
    most = max(len(sink.of("k%d@example.org" % n)) for n in range(20))
    ids = all(len({parse(m[1])["Message-ID"] for m in sink.of("k%d@example.org" % n)}) == 1 for n in range(20))
    print("# the most copies of one mail: %d" % most)
    r.check("a double has the same Message-ID", ids)


p.start()
worker = p.start_worker()
files()
hostile()
sink = Sink(p.dir)
smtp(sink, worker)
refusals(sink)
our_fault(sink)
limits()
killed(sink, worker)
code = p.stop_worker(worker)
r.check("SIGTERM ends it with 0", code == 0, code)
r.end()
