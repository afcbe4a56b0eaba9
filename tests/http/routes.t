# routes.t - routes that no other file asks: resend, csrf, teams, revoke, hosts.

as nobody
POST /v1/auth/signup {"email":"late-$RUN@test.example","password":"a long enough one","name":"Late"}
201 {"message":"~."}

# Whoever asks, and whatever is known, the answer is the same.
POST /v1/auth/activate/resend {"email":"late-$RUN@test.example","password":"a long enough one"}
204 empty

POST /v1/auth/activate/resend {"email":"late-$RUN@test.example","password":"not the password"}
204 empty

POST /v1/auth/activate/resend {"email":"nobody-$RUN@test.example","password":"a long enough one"}
204 empty

POST /v1/auth/activate/resend {"email":"late-$RUN@test.example"}
400 {"error":{"code":"invalid_request","message":"~password",...}}

GET /v1/auth/csrf
401 {"error":{"code":"unauthorized",...}}

GET /v1/teams
401 {"error":{"code":"unauthorized",...}}

POST /v1/hosts
401 {"error":{"code":"unauthorized",...}}

as alice
GET /v1/teams
200 [{"id":"$ALICE_TEAM_ID","role":"owner",...}]

GET /v1/hosts
200 []

POST /v1/hosts {"name":"mine"}
403 {"error":{"code":"forbidden",...}}

# A team's own hosts are its owner's to run, once the platform lets it bring some.
POST /v1/hosts {"name":"own","type":"byoc","team_id":"$ALICE_TEAM_ID"}
403 {"error":{"code":"forbidden","message":"~may not bring",...}}

GET /v1/admin/cluster
403 {"error":{"code":"forbidden",...}}

GET /v1/admin/scaling
403 {"error":{"code":"forbidden",...}}

PUT /v1/admin/scaling {"pools":[]}
403 {"error":{"code":"forbidden",...}}

as admin
GET /v1/admin/cluster
200 {"hosts":{"pending":$PENDING,"online":$ONLINE,"draining":$DRAINING,"unreachable":$UNREACHABLE},"capacity":{"memory_mb":$MB,"vcpus":$VCPUS,"disk_mb":$DISK},"used":{"capsules":$CAPSULES,...},"capsules":{...},"artifacts":{"total":$TOTAL,"bytes":$BYTES,"one_copy":$ONE,"no_copy":$NONE},"hosts_wanted":$WANTED}

GET /v1/admin/scaling
200 {"pools":$POOLS,"warm_memory_percent":$WARM,"min_hosts":$LEAST,"max_hosts":$MOST,"generation":$GENERATION,"updated_at":$SET,"hosts":$HOSTS,"hosts_wanted":$WANTED_TOO,"hosts_behind":$BEHIND,"alerts":$ALERTS}

# What is refused changes nothing; what is taken is seen in tests/vm/hosts_test.py, whose hosts nobody else uses.
PUT /v1/admin/scaling {}
400 {"error":{"code":"invalid_request","message":"~\"pools\" is missing",...}}

PUT /v1/admin/scaling {"pools":[{"template":"minimal"}]}
400 {"error":{"code":"invalid_request","message":"~\"shape\" is missing",...}}

PUT /v1/admin/scaling {"pools":[{"template":"minimal","shape":{"vcpus":17,"memory_mb":512}}]}
400 {"error":{"code":"invalid_request","message":"~\"vcpus\" is not between",...}}

PUT /v1/admin/scaling {"pools":[{"template":"minimal","shape":{"vcpus":1,"memory_mb":127}}]}
400 {"error":{"code":"invalid_request","message":"~\"memory_mb\" is not between",...}}

PUT /v1/admin/scaling {"pools":[{"template":"minimal","shape":{"vcpus":1,"memory_mb":512},"hot":65}]}
400 {"error":{"code":"invalid_request","message":"~\"hot\" is not between",...}}

PUT /v1/admin/scaling {"pools":[{"template":"minimal","shape":{"vcpus":1,"memory_mb":512},"waiting":-1}]}
400 {"error":{"code":"invalid_request","message":"~\"waiting\" is not between",...}}

PUT /v1/admin/scaling {"pools":[{"template":"minimal","shape":{"vcpus":1,"memory_mb":512}},{"template":"minimal","shape":{"memory_mb":512,"vcpus":1}}]}
400 {"error":{"code":"invalid_request","message":"~minimal 1x512 twice",...}}

PUT /v1/admin/scaling {"pools":[{"template":"no-such-$RUN","shape":{"vcpus":1,"memory_mb":512}}]}
400 {"error":{"code":"invalid_request","message":"~no template no-such-",...}}

PUT /v1/admin/scaling {"pools":[],"warm_memory_percent":91}
400 {"error":{"code":"invalid_request","message":"~\"warm_memory_percent\" is not between",...}}

PUT /v1/admin/scaling {"pools":[],"min_hosts":3,"max_hosts":2}
400 {"error":{"code":"invalid_request","message":"~\"min_hosts\" is more than",...}}

PUT /v1/admin/scaling {"pools":[],"max_hosts":0}
400 {"error":{"code":"invalid_request","message":"~\"max_hosts\" is not between",...}}

PUT /v1/admin/scaling {"pools":[],"generation":1000000000}
409 {"error":{"code":"conflict","message":"~at generation",...}}

GET /v1/admin/scaling
200 {"pools":$POOLS,"generation":$GENERATION,...}

PUT /v1/admin/teams/$ALICE_TEAM_ID/byoc {"enabled":true}
204 empty

as alice
POST /v1/hosts {"name":"own","type":"byoc","team_id":"$ALICE_TEAM_ID"}
201 {"host":{"id":"$OWN","name":"own","type":"byoc","team_id":"$ALICE_TEAM_ID",...},"registration_token":"$OWN_TOKEN"}

GET /v1/hosts
200 [{"id":"$OWN",...}]

POST /v1/hosts/$OWN/tags {"tag":"rack"}
204 empty

GET /v1/hosts/$OWN/tags
200 ["rack"]

GET /v1/hosts/$OWN
200 {"id":"$OWN","tags":["rack"],...}

PATCH /v1/hosts/$OWN {"schedulable":false}
200 {"id":"$OWN","schedulable":false,...}

GET /v1/hosts/$OWN/delete-preview
200 {"capsule_ids":[],...}

GET /v1/hosts/$OWN/metrics
409 {"error":{"code":"invalid_state",...}}

GET /v1/hosts/$OWN/logs?tail=0
400 {"error":{"code":"invalid_request",...}}

as bob
GET /v1/hosts
200 []

GET /v1/hosts/$OWN
404 {"error":{"code":"not_found",...}}

GET /v1/hosts/$OWN/tags
404 {"error":{"code":"not_found",...}}

GET /v1/hosts/$OWN/metrics
404 {"error":{"code":"not_found",...}}

GET /v1/hosts/$OWN/logs
404 {"error":{"code":"not_found",...}}

POST /v1/hosts/$OWN/tags {"tag":"mine"}
404 {"error":{"code":"not_found",...}}

DELETE /v1/hosts/$OWN/tags/rack
404 {"error":{"code":"not_found",...}}

GET /v1/hosts/$OWN/delete-preview
404 {"error":{"code":"not_found",...}}

GET /v1/hosts/$OWN/capsules
404 {"error":{"code":"not_found",...}}

PATCH /v1/hosts/$OWN {"name":"bobs"}
404 {"error":{"code":"not_found",...}}

POST /v1/hosts/$OWN/token
404 {"error":{"code":"not_found",...}}

POST /v1/hosts/$OWN/drain
404 {"error":{"code":"not_found",...}}

DELETE /v1/hosts/$OWN
404 {"error":{"code":"not_found",...}}

POST /v1/hosts {"type":"byoc","team_id":"$ALICE_TEAM_ID"}
404 {"error":{"code":"not_found",...}}

as alice
DELETE /v1/hosts/$OWN
204 empty

as admin
PUT /v1/admin/teams/$ALICE_TEAM_ID/byoc {"enabled":false}
204 empty

as alice

POST /v1/api-keys {"name":"short-lived"}
201 {"id":"$SHORT_ID","key":"$SHORT",...}

as key $SHORT
GET /v1/capsules
200 []

as bob
POST /v1/api-keys/$SHORT_ID/revoke
404 {"error":{"code":"not_found",...}}

as alice
POST /v1/api-keys/$SHORT_ID/revoke
200 {"id":"$SHORT_ID","state":"revoked","revoked_at":"~Z$",...}

# Revoked is revoked with the next request, and for good.
as key $SHORT
GET /v1/capsules
401 {"error":{"code":"unauthorized",...}}

as alice
POST /v1/api-keys/$SHORT_ID/revoke
409 {"error":{"code":"invalid_state",...}}

as admin
POST /v1/hosts {"name":"test-$RUN"}
201 {"host":{"id":"$HOST","name":"test-$RUN","status":"pending",...},"registration_token":"$FIRST"}

GET /v1/hosts
200 [{"id":"$HOST","name":"test-$RUN",...},...]

POST /v1/hosts/$HOST/token
201 {"host":{"id":"$HOST",...},"registration_token":"$SECOND"}

POST /v1/hosts/host-0000000000000000000000001/token
404 {"error":{"code":"not_found",...}}

# The first token died when the second was made.
as nobody
POST /v1/hosts/register {"token":"$FIRST","address":"unix:/nonexistent","arch":"x86_64","cpu_cores":1,"memory_mb":1024,"disk_gb":1,"accel":"tcg"}
401 {"error":{"code":"unauthorized",...}}
