# keys.t - API keys, as the outside sees them (spec 01 §2.7).

as alice
POST /v1/api-keys {"name":"first"}
201 {"id":"$ID","name":"first","key":"$K","key_prefix":"~^htc_","team_id":"$ALICE_TEAM_ID","created_by":"$ALICE_USER_ID",...}

GET /v1/api-keys
200 [{"id":"$ID","name":"first",...},...]

# The key itself is shown once.
GET /v1/api-keys/$ID
200 text ^(?!.*"key":)

as key $K
GET /v1/capsules
200 []

as bob
GET /v1/api-keys/$ID
404 {"error":{"code":"not_found","message":"$MISSING",...}}

# Somebody else's and nobody's are one answer.
GET /v1/api-keys/key-0000000000000000000000001
404 {"error":{"code":"not_found","message":"$MISSING",...}}

DELETE /v1/api-keys/$ID
404 {"error":{"code":"not_found",...}}

as alice
POST /v1/api-keys {"name":"theirs","prefix":"e2b"}
201 {"key":"~^e2b_[0-9a-f]{40}$",...}

POST /v1/api-keys {"name":"none","prefix":"xyz"}
400 {"error":{"code":"invalid_request","message":"~prefix",...}}

POST /v1/api-keys {"name":"again"}
Idempotency-Key: again-$RUN
201 {"id":"$AGAIN",...}

POST /v1/api-keys {"name":"again"}
Idempotency-Key: again-$RUN
201 {"id":"$AGAIN",...}
Idempotent-Replayed: true

POST /v1/api-keys {"name":"another"}
Idempotency-Key: again-$RUN
422 {"error":{"code":"idempotency_mismatch",...}}

DELETE /v1/api-keys/$ID
204 empty

DELETE /v1/api-keys/$ID
404 {"error":{"code":"not_found",...}}

# A deleted key is refused at once, by the pools and by the gateway (5 s at most there).
as key $K
GET /v1/capsules
401 {"error":{"code":"unauthorized",...}}

eventually 30
POST /v1/capsules/cl-0000000000000000000000001/exec {"cmd":"id"}
401 {"error":{"code":"unauthorized",...}}
