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
403 {"error":{"code":"forbidden",...}}

POST /v1/hosts {"name":"mine"}
403 {"error":{"code":"forbidden",...}}

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
