# life.t - sleep, wake, change, snapshots, forks: shapes and refusals (spec 02 §2.3, §2.4).

as alice
POST /v1/api-keys {"name":"life"}
201 {"key":"$K",...}

as key $K
POST /v1/capsules {"memory_mb":256,"timeout_sec":-5,"idle_action":"hibernate","idle_signals":["api","exec"],"auto_resume":"ports","max_lifetime_sec":7200,"on_max_lifetime":"destroy","tags":["a","b"],"network":{"internet":false,"allow":["10.1.0.0/16","*.example.org"]}}
201 {"id":"$ID","timeout_sec":0,"idle_action":"hibernate","idle_signals":["api","exec"],"auto_resume":"ports","max_lifetime_sec":7200,"on_max_lifetime":"destroy","timeout_mode":"idle","network":{"internet":false,"allow":["10.1.0.0/16","*.example.org"],...},"visibility":"team","warnings":[],...}

# What cannot be.
POST /v1/capsules {"idle_action":"explode"}
400 {"error":{"code":"invalid_request","message":"~idle_action",...}}

POST /v1/capsules {"idle_signals":["api","moon"]}
400 {"error":{"code":"invalid_request","message":"~idle_signals",...}}

POST /v1/capsules {"timeout_sec":2592001}
400 {"error":{"code":"invalid_request","message":"~timeout_sec",...}}

POST /v1/capsules {"network":{"allow":["not a name"]}}
400 {"error":{"code":"invalid_request","message":"~network.allow",...}}

POST /v1/capsules {"network":{"deny":["10.0.0.0/33"]}}
400 {"error":{"code":"invalid_request","message":"~network.deny",...}}

POST /v1/capsules {"snapshot":"snp-0000000000000000000000000"}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules {"snapshot":"snp-0000000000000000000000000","template":"minimal"}
400 {"error":{"code":"invalid_request",...}}

eventually 90
GET /v1/capsules/$ID
200 {"id":"$ID","state":"running","expires_at":$EXPIRES,...}

# Change.
PATCH /v1/capsules/$ID {"name":"life-$RUN","tags_add":["c"],"tags_remove":["a"],"timeout_sec":3600,"metadata":{"k":"v"},"auto_resume":"all","vcpus":2}
200 {"name":"life-$RUN","tags":["b","c"],"timeout_sec":3600,"metadata":{"k":"v",...},"auto_resume":"all","vcpus":1,"warnings":["~cold boot"],...}

PATCH /v1/capsules/$ID {"tags":["x"],"tags_add":["y"]}
400 {"error":{"code":"invalid_request",...}}

PATCH /v1/capsules/$ID {"generation":1,"timeout_sec":1}
409 {"error":{"code":"conflict",...}}

PATCH /v1/capsules/cl-0000000000000000000000000 {"timeout_sec":1}
404 {"error":{"code":"not_found",...}}

# Filters.
GET /v1/capsules?tag=b&tag=c
200 [{"id":"$ID",...}]

GET /v1/capsules?tag=b&tag=nope
200 []

GET /v1/capsules?tag_any=nope&tag_any=c
200 [{"id":"$ID",...}]

GET /v1/capsules?name=life-
200 [{"id":"$ID",...}]

GET /v1/capsules?created_after=2999-01-01T00:00:00Z
200 []

GET /v1/capsules?state=running&created_before=2999-01-01T00:00:00Z
200 [{"id":"$ID",...}]

GET /v1/capsules?created_after=yesterday
400 {"error":{"code":"invalid_request",...}}

# Policies and sizes.
PATCH /v1/capsules/$ID {"restart_policy":"on_failure"}
200 {"restart_policy":"on_failure",...}

PATCH /v1/capsules/$ID {"restart_policy":"always"}
400 {"error":{"code":"invalid_request","message":"~restart_policy",...}}

PATCH /v1/capsules/$ID {"disk_size_mb":1024}
400 {"error":{"code":"invalid_request","message":"~disk_size_mb",...}}

PATCH /v1/capsules/$ID {"disk_size_mb":6144}
200 {"disk_size_mb":6144,"warnings":["~cold boot"],...}

GET /v1/capsules/$ID/snapshot-policy
200 {"cron":null,"keep_last":10,"keep_days":30,"memory":true,"next_at":null,"last_error":null}

PUT /v1/capsules/$ID/snapshot-policy {"cron":"0 25 * * *"}
400 {"error":{"code":"invalid_request","message":"~hour",...}}

PUT /v1/capsules/$ID/snapshot-policy {"cron":"0 3 * * *","keep_last":2,"memory":false}
200 {"cron":"0 3 * * *","keep_last":2,"keep_days":30,"memory":false,"next_at":$NEXT,"last_error":null}

PUT /v1/capsules/$ID/snapshot-policy {"cron":null}
200 {"cron":null,...}

GET /v1/capsules/cl-0000000000000000000000001/snapshot-policy
404 {"error":{"code":"not_found",...}}

# Pause and resume.
POST /v1/capsules/$ID/resume {}
409 {"error":{"code":"invalid_state","message":"~not paused",...}}

POST /v1/capsules/$ID/recover {}
409 {"error":{"code":"invalid_state",...}}

POST /v1/capsules/$ID/pause {}
200 {"id":"$ID","status":"paused","state":"paused","desired_state":"paused","residency":"ram","paused_by":"user",...}

POST /v1/capsules/$ID/pause {}
409 {"error":{"code":"invalid_state","message":"~not running",...}}

# A person put it to sleep: a call does not wake it.
POST /v1/capsules/$ID/exec {"cmd":"true"}
409 {"error":{"code":"invalid_state",...}}

POST /v1/capsules/$ID/ping
409 {"error":{"code":"invalid_state",...}}

POST /v1/capsules/$ID/resume?wait=55 {"timeout_sec":1800}
200 {"state":"running","timeout_sec":1800,...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","echo one > /root/x"]}
200 {"exit_code":0,...}

# Snapshots.
POST /v1/capsules/$ID/snapshots?wait=55 {"name":"first","metadata":{"why":"test"},"expires_in_sec":3600}
201 {"id":"$SNAP","capsule_id":"$ID","name":"first","kind":"manual","memory":true,"state":"ready","pinned":false,"metadata":{"why":"test"},...}

POST /v1/capsules/$ID/snapshots {"name":"first"}
409 {"error":{"code":"conflict",...}}

GET /v1/capsules/$ID/snapshots
200 [{"id":"$SNAP",...}]

GET /v1/snapshots?kind=manual&state=ready
200 [{"id":"$SNAP",...}]

GET /v1/snapshots/stats
200 {"count":1,"with_memory":1,"pinned":0,...}

PATCH /v1/snapshots/$SNAP {"pinned":true,"description":"kept","expires_at":null}
200 {"id":"$SNAP","pinned":true,"description":"kept","expires_at":null,...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","echo two > /root/x"]}
200 {"exit_code":0,...}

POST /v1/capsules/$ID/rollback {"snapshot":"snp-0000000000000000000000000"}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules/$ID/rollback?wait=55 {"snapshot":"$SNAP"}
200 {"id":"$ID","state":"running",...}

POST /v1/capsules/$ID/exec {"cmd":"cat","args":["/root/x"]}
200 {"stdout":"one\n",...}

GET /v1/capsules/$ID/snapshots?kind=pre_op
200 [{"kind":"pre_op","state":"ready","expires_at":$T,...}]

# Somebody else sees none of it.
as bob
GET /v1/snapshots/$SNAP
404 {"error":{"code":"not_found",...}}

POST /v1/snapshots/$SNAP/restore {}
404 {"error":{"code":"not_found",...}}

POST /v1/capsules/$ID/pause {}
404 {"error":{"code":"not_found",...}}

GET /v1/capsules/$ID/events
404 {"error":{"code":"not_found",...}}

as key $K
# Activity.
POST /v1/capsules/$ID/events {"type":"app.deployed","data":{"version":"1.2"}}
201 {"type":"app.deployed","category":"app","capsule_id":"$ID","data":{"version":"1.2"},...}

POST /v1/capsules/$ID/events {"type":"capsule.paused"}
400 {"error":{"code":"invalid_request",...}}

GET /v1/capsules/$ID/events?type=capsule.paused&view=timeline
200 [{"type":"capsule.paused","actor_type":"api_key","data":{"reason":"user",...},...}]

# Hibernate: it belongs to no host; its snapshot is its image.
POST /v1/capsules/$ID/hibernate?wait=55 {}
200 {"status":"hibernated","state":"hibernated",...}

POST /v1/capsules/$ID/snapshots {"name":"asleep"}
201 {"state":"ready","memory":true,...}

POST /v1/capsules/$ID/fork?wait=55 {"count":1,"name_prefix":"asleep-$RUN"}
201 [{"capsule":{"id":"$COPY","name":"asleep-$RUN-1","state":"running",...}}]

POST /v1/capsules/$COPY/exec {"cmd":"cat","args":["/root/x"]}
200 {"stdout":"one\n",...}

GET /v1/capsules/$ID
200 {"state":"hibernated",...}

DELETE /v1/capsules/$COPY
204

POST /v1/capsules/$ID/fork {"count":101}
400 {"error":{"code":"invalid_request","message":"~count",...}}

DELETE /v1/capsules/$ID
204

eventually 60
GET /v1/capsules/$ID
200 {"id":"$ID","state":"stopped",...}

# The snapshot outlives its capsule.
POST /v1/snapshots/$SNAP/restore?wait=55 {"name":"again-$RUN"}
201 {"id":"$AGAIN","name":"again-$RUN","snapshot_id":"$SNAP","memory_mb":256,...}

eventually 90
GET /v1/capsules/$AGAIN
200 {"state":"running",...}

POST /v1/capsules/$AGAIN/exec {"cmd":"cat","args":["/root/x"]}
200 {"stdout":"one\n",...}

DELETE /v1/capsules/$AGAIN
204

DELETE /v1/snapshots/$SNAP
204

GET /v1/snapshots/$SNAP
404 {"error":{"code":"not_found",...}}
