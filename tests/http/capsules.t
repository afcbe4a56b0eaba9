# capsules.t - capsules from create to destroy, a command, and files (spec 02 §2, §3).

as alice
POST /v1/api-keys {"name":"capsules"}
201 {"key":"$K",...}

as key $K
POST /v1/capsules {"template":"nothing-of-the-kind"}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules {"template":"minimal","vcpus":17}
400 {"error":{"code":"invalid_request","message":"~vcpus",...}}

POST /v1/capsules {"template":"minimal","memory_mb":64}
400 {"error":{"code":"invalid_request","message":"~memory_mb",...}}

POST /v1/capsules {"template":"minimal","envs":{"1X":"y"}}
400 {"error":{"code":"invalid_request","message":"~envs",...}}

POST /v1/capsules {"template":"minimal","envs":{"HUTCH_X":"y"}}
400 {"error":{"code":"invalid_request","message":"~envs",...}}

POST /v1/capsules {"template":"minimal","metadata":{"color":"blue"},"envs":{"GREETING":"hello"}}
Idempotency-Key: create-$RUN
201 {"id":"$ID","status":"~running|starting|pending","template":"minimal","vcpus":1,"memory_mb":512,"disk_size_mb":5120,"metadata":{"color":"blue",...},"env_names":["GREETING"],...}

# The same key again: the same capsule, not a second one.
POST /v1/capsules {"template":"minimal","metadata":{"color":"blue"},"envs":{"GREETING":"hello"}}
Idempotency-Key: create-$RUN
201 {"id":"$ID",...}
Idempotent-Replayed: true

eventually 90
GET /v1/capsules/$ID
200 {"id":"$ID","status":"running","state":"running","start_mode":"~warm|cold","accel":"~kvm|tcg",...}

GET /v1/capsules
200 [{"id":"$ID",...}]

GET /v1/capsules?metadata.color=red
200 []

# exec
POST /v1/capsules/$ID/exec {"cmd":"python3","args":["-c","print(6*7)"]}
200 {"cmd":"python3","stdout":"42\n","stderr":"","exit_code":0,"duration_ms":$D,...}

POST /v1/capsules/$ID/exec {"cmd":"pwd"}
200 {"stdout":"/root\n","exit_code":0,...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","echo $$GREETING $$OTHER; pwd; echo oops >&2; exit 3"],"cwd":"/tmp","envs":{"OTHER":"world"}}
200 {"stdout":"hello world\n/tmp\n","stderr":"oops\n","exit_code":3,...}

POST /v1/capsules/$ID/exec {"cmd":"cat","stdin":"aGVsbG8="}
200 {"stdout":"hello","exit_code":0,...}

POST /v1/capsules/$ID/exec {"cmd":"whoami","user":"user"}
200 {"stdout":"user\n","exit_code":0,...}

POST /v1/capsules/$ID/exec {"cmd":"no-such-command"}
200 {"exit_code":127,...}

POST /v1/capsules/$ID/exec {"cmd":"pwd","cwd":"/no/such/folder"}
400 {"error":{"code":"invalid_request",...}}

POST /v1/capsules/$ID/exec {"cmd":"pwd","user":"nosuchuser"}
400 {"error":{"code":"invalid_request",...}}

POST /v1/capsules/$ID/exec {}
400 {"error":{"code":"invalid_request","message":"~cmd",...}}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","sleep 100 & sleep 100"],"timeout_sec":1}
200 {"exit_code":124,"timed_out":true,...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","printf '\\377'"]}
200 {"encoding":"base64","stdout":"/w==","exit_code":0,...}

POST /v1/capsules/$ID/exec {"cmd":"sleep","args":["60"],"background":true,"tag":"nap"}
202 {"pid":$PID,"tag":"nap",...}

# Files.
POST /v1/capsules/$ID/files/write form {"path":"/root/a/b.txt","file":"some text"}
204 empty

POST /v1/capsules/$ID/files/read {"path":"/root/a/b.txt"}
200 text ^some text$
Content-Length: 9

POST /v1/capsules/$ID/files/read {"path":"/root/a/b.txt"}
Range: bytes=5-
206 text ^text$

POST /v1/capsules/$ID/files/read {"path":"/root/none"}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules/$ID/files/read {"path":"/root"}
400 {"error":{"code":"invalid_request",...}}

POST /v1/capsules/$ID/files/write form {"path":"/root/a/b.txt","if_absent":"true","file":"other"}
409 {"error":{"code":"conflict",...}}

POST /v1/capsules/$ID/files/list {"path":"/root/a"}
200 {"entries":[{...}],...}

POST /v1/capsules/$ID/files/mkdir {"path":"/root/new/folder"}
200 {"entry":{...}}

POST /v1/capsules/$ID/files/mkdir {"path":"/root/new/folder"}
409 {"error":{"code":"conflict",...}}

POST /v1/capsules/$ID/files/move {"source":"/root/a/b.txt","destination":"/root/new/c.txt"}
200 {"entry":{...}}

POST /v1/capsules/$ID/files/stat {"path":"/root/new/c.txt"}
200 {"entry":{...}}

POST /v1/capsules/$ID/files/stat {"path":"/root/a/b.txt"}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules/$ID/files/remove {"path":"/root/new"}
204 empty

POST /v1/capsules/$ID/files/remove {"path":"/root/new"}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules/$ID/files/remove {"path":"/"}
400 {"error":{"code":"invalid_request",...}}

# Another team sees nothing of it, whatever it does.
as bob
GET /v1/capsules
200 []

GET /v1/capsules/$ID
404 {"error":{"code":"not_found","message":"$MISSING",...}}

GET /v1/capsules/cl-0000000000000000000000001
404 {"error":{"code":"not_found","message":"$MISSING",...}}

POST /v1/capsules/$ID/exec {"cmd":"id"}
404 {"error":{"code":"not_found","message":"$GONE",...}}

POST /v1/capsules/cl-0000000000000000000000001/exec {"cmd":"id"}
404 {"error":{"code":"not_found","message":"$GONE",...}}

POST /v1/capsules/$ID/files/read {"path":"/etc/passwd"}
404 {"error":{"code":"not_found",...}}

DELETE /v1/capsules/$ID
404 {"error":{"code":"not_found",...}}

# Destroy: twice is once.
as key $K
DELETE /v1/capsules/$ID
204 empty

DELETE /v1/capsules/$ID
204 empty

eventually 90
GET /v1/capsules/$ID
200 {"status":"stopped","state":"stopped",...}

GET /v1/capsules
200 []

eventually 30
POST /v1/capsules/$ID/exec {"cmd":"id"}
409 {"error":{"code":"invalid_state",...}}
