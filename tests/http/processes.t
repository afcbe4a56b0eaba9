# processes.t - processes of a capsule, and files as streams (spec 02 §2.5, §2.6).

as carol
POST /v1/api-keys {"name":"processes"}
201 {"key":"$K",...}

as key $K
POST /v1/capsules {"template":"minimal"}
201 {"id":"$ID",...}

eventually 90
GET /v1/capsules/$ID
200 {"state":"running",...}

POST /v1/capsules/$ID/exec {"cmd":"sleep","args":["600"],"background":true,"tag":"nap"}
202 {"sandbox_id":"$ID","cmd":"sleep","pid":$PID,"tag":"nap"}

# A tag is unique among the living.
POST /v1/capsules/$ID/exec {"cmd":"sleep","args":["600"],"background":true,"tag":"nap"}
409 {"error":{"code":"conflict",...}}

POST /v1/capsules/$ID/exec {"cmd":"sleep","background":true,"tag":"no tag"}
400 {"error":{"code":"invalid_request","message":"~tag",...}}

GET /v1/capsules/$ID/processes
200 {"processes":[{"pid":$PID,"tag":"nap","cmd":"sleep","args":["600"],"state":"running","started_at":"$AT"}]}

GET /v1/capsules/$ID/processes/$PID
200 {"pid":$PID,"tag":"nap",...}

GET /v1/capsules/$ID/processes/tag:nap
200 {"pid":$PID,...}

GET /v1/capsules/$ID/processes/tag:nothing
404 {"error":{"code":"not_found",...}}

DELETE /v1/capsules/$ID/processes/nap?signal=SIGFOO
400 {"error":{"code":"invalid_request","message":"~signal",...}}

DELETE /v1/capsules/$ID/processes/nap?signal=SIGTERM
204 empty

eventually 60
GET /v1/capsules/$ID/processes/pid:$PID
200 {"pid":$PID,"state":"ended","exit_code":143,...}

DELETE /v1/capsules/$ID/processes/nap
404 {"error":{"code":"not_found",...}}

PUT /v1/capsules/$ID/processes {}
405 {"error":{"code":"method_not_allowed",...}}
Allow: GET

# What a signal ended, what may not be run, what is too much.
POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","kill -9 $$$$"]}
200 {"exit_code":137,...}

POST /v1/capsules/$ID/exec {"cmd":"/etc/passwd"}
200 {"exit_code":126,...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","trap '' TERM; while :; do sleep 0.2; done"],"timeout_sec":1}
200 {"exit_code":124,"timed_out":true,...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","head -c 17000000 /dev/zero | tr '\\0' x | tail -c 16900000"]}
200 {"truncated":true,"encoding":"utf-8","exit_code":0,...}

POST /v1/capsules/$ID/exec {"cmd":"cat","stdin":"not base64!"}
400 {"error":{"code":"invalid_request","message":"~stdin",...}}

# Streams: the path comes first, or not at all.
POST /v1/capsules/$ID/files/stream/write form {"path":"/root/s/f","mode":"0600","mtime":"1000000000","file":"streamed"}
204 empty

POST /v1/capsules/$ID/files/stream/write form {"file":"streamed","path":"/root/s/f"}
400 {"error":{"code":"invalid_request","message":"~path",...}}

POST /v1/capsules/$ID/files/write form {"file":"file first","path":"/root/s/g"}
204 empty

POST /v1/capsules/$ID/files/write form {"path":"/root/s/g","mode":"9","file":"x"}
400 {"error":{"code":"invalid_request","message":"~mode",...}}

POST /v1/capsules/$ID/files/write form {"path":"/root/s","file":"x"}
400 {"error":{"code":"invalid_request",...}}

POST /v1/capsules/$ID/files/write form {"path":"/root/s/g"}
400 {"error":{"code":"invalid_request","message":"~file",...}}

POST /v1/capsules/$ID/files/write {"path":"/root/s/g"}
415 {"error":{"code":"unsupported_media_type",...}}

POST /v1/capsules/$ID/files/stream/read {"path":"/root/s/f"}
200 text ^streamed$

POST /v1/capsules/$ID/files/read {"path":"/root/s/f"}
Range: bytes=100-
416 {"error":{"code":"range_not_satisfiable",...}}

POST /v1/capsules/$ID/files/list {"path":"/root/s","limit":1}
200 {"entries":[{"name":"f","path":"/root/s/f","type":"file","size":8,"mode":384,"modified_at":"~^2001-09-09T01:46:40",...}],"next":"$NEXT"}

POST /v1/capsules/$ID/files/list {"path":"/root/s","limit":1,"cursor":"$NEXT"}
200 {"entries":[{"name":"g",...}]}

POST /v1/capsules/$ID/files/move {"source":"/root/s/f","destination":"/root/s/g"}
409 {"error":{"code":"conflict",...}}

POST /v1/capsules/$ID/files/move {"source":"/root/s/f","destination":"/root/s/g","overwrite":true}
200 {"entry":{"path":"/root/s/g","size":8,...}}

DELETE /v1/capsules/$ID
204 empty

eventually 30
POST /v1/capsules/$ID/exec {"cmd":"true"}
409 {"error":{"code":"invalid_state",...}}
