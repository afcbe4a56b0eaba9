# fork.t - what a fork and a restore are told, as a create is (spec 02 §2.3, §2.4).

as alice
POST /v1/api-keys {"name":"fork"}
201 {"key":"$K",...}

as key $K
POST /v1/capsules {"memory_mb":256,"workdir":"/root","tags":["of-parent"]}
201 {"id":"$ID","disk_size_mb":5120,...}

eventually 90
GET /v1/capsules/$ID
200 {"id":"$ID","state":"running",...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","echo one >/root/x"]}
200 {"exit_code":0,...}

# Not less disk than the parent has; nothing comes of what is refused.
POST /v1/capsules/$ID/fork {"disk_size_mb":5119}
400 {"error":{"code":"invalid_request","message":"~disk_size_mb.* parent's 5120",...}}

POST /v1/capsules/$ID/fork {"disk_size_mb":262145}
400 {"error":{"code":"invalid_request","message":"~disk_size_mb",...}}

POST /v1/capsules/$ID/fork {"host_tags":["No Tag"]}
400 {"error":{"code":"invalid_request","message":"~host_tags",...}}

POST /v1/capsules/$ID/fork {"host_tags":["1","2","3","4","5","6","7","8","9"]}
400 {"error":{"code":"invalid_request","message":"~host_tags",...}}

GET /v1/capsules
200 [{"id":"$ID","state":"running",...}]

# More disk: the child's file system has grown when it runs, the parent's stays.
POST /v1/capsules/$ID/fork?wait=55 {"disk_size_mb":6144,"workdir":"/tmp","tags":["of-child"]}
201 [{"capsule":{"id":"$KID","disk_size_mb":6144,"parent_id":"$ID","tags":["of-child"],...}}]

eventually 90
GET /v1/capsules/$KID
200 {"state":"running","start_mode":"restored","disk_size_mb":6144,...}

POST /v1/capsules/$KID/exec {"cmd":"sh","args":["-c","cat /root/x; pwd; test $(($(stat -f -c '%b * %S' /) >> 20)) -gt 5500 && echo grown"]}
200 {"stdout":"one\n/tmp\ngrown\n",...}

POST /v1/capsules/$ID/exec {"cmd":"sh","args":["-c","pwd; test $(($(stat -f -c '%b * %S' /) >> 20)) -gt 5500 || echo as before"]}
200 {"stdout":"/root\nas before\n",...}

DELETE /v1/capsules/$KID
204

# 0 and below: as much as the parent has. A copy with tags that no host has waits for one, and its parent goes on.
POST /v1/capsules/$ID/fork?wait=55 {"disk_size_mb":-1,"host_tags":["nowhere-$RUN"]}
201 [{"capsule":{"id":"$LATER","disk_size_mb":5120,"state":"pending","tags":["of-parent"],...}}]

eventually 90
GET /v1/capsules/$ID
200 {"state":"running","warnings":[],...}

GET /v1/capsules/$LATER
200 {"state":"pending",...}

DELETE /v1/capsules/$LATER
204

# A restore into a new one: with ports, as a create.
eventually 60
POST /v1/capsules/$ID/snapshots?wait=55 {"name":"s"}
201 {"id":"$SNAP","state":"ready",...}

POST /v1/snapshots/$SNAP/restore {"ports":[{"port":8080},{"port":8080}]}
400 {"error":{"code":"invalid_request","message":"~8080",...}}

POST /v1/snapshots/$SNAP/restore {"ports":[{"port":0}]}
400 {"error":{"code":"invalid_request","message":"~port",...}}

POST /v1/snapshots/$SNAP/restore {"disk_size_mb":1024}
400 {"error":{"code":"invalid_request","message":"~disk_size_mb",...}}

POST /v1/snapshots/$SNAP/restore?wait=55 {"ports":[{"port":8080},{"port":9090,"visibility":"public","label":"web"}],"disk_size_mb":6144}
201 {"id":"$AGAIN","disk_size_mb":6144,"ports":[{"port":8080,"visibility":"private",...},{"port":9090,"visibility":"public",...}],...}

eventually 90
GET /v1/capsules/$AGAIN
200 {"state":"running","ports":[{"port":8080,...},{"port":9090,...}],...}

POST /v1/capsules/$AGAIN/exec {"cmd":"sh","args":["-c","test $(($(stat -f -c '%b * %S' /) >> 20)) -gt 5500 && cat /root/x"]}
200 {"stdout":"one\n",...}

GET /v1/capsules/$AGAIN/events?type=port.published
200 [{"type":"port.published",...},{"type":"port.published",...}]

DELETE /v1/capsules/$AGAIN
204

DELETE /v1/snapshots/$SNAP
204

DELETE /v1/capsules/$ID
204
