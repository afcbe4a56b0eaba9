# auth.t - sign-up, activation, login, refresh, logout, as the outside sees them (spec 01 §2.1).

as nobody
POST /v1/auth/signup {"email":"Eve-$RUN@Test.Example","password":"a long enough one","name":"Eve"}
201 {"message":"$MESSAGE"}

# The same answer for an address that is known already.
POST /v1/auth/signup {"email":"eve-$RUN@test.example","password":"a long enough two","name":"Eve"}
201 {"message":"$MESSAGE"}

POST /v1/auth/login {"email":"eve-$RUN@test.example","password":"a long enough one"}
403 {"error":{"code":"account_not_activated",...}}

POST /v1/auth/login {"email":"eve-$RUN@test.example","password":"wrong wrong wrong"}
401 {"error":{"code":"unauthorized","message":"$REFUSED",...}}

# An unknown address and a wrong password are one answer.
POST /v1/auth/login {"email":"nobody-$RUN@test.example","password":"wrong wrong wrong"}
401 {"error":{"code":"unauthorized","message":"$REFUSED",...}}

POST /v1/auth/activate {"token":"nonsense"}
400 {"error":{"code":"invalid_token",...}}

mail eve-$RUN@test.example /token=([A-Za-z0-9._~%-]+)/ -> $TOKEN

POST /v1/auth/activate {"token":"$TOKEN"}
200 {"token":"$ACCESS","user_id":"~^usr-[0-9a-z]{25}$","team_id":"~^team-[0-9a-z]{25}$","email":"eve-$RUN@test.example","name":"Eve","role":"owner","is_admin":false,...}
Cache-Control: private, no-store

# A token is good once.
POST /v1/auth/activate {"token":"$TOKEN"}
400 {"error":{"code":"~invalid_token|already_activated",...}}

as bearer $ACCESS
GET /v1/me
200 {"name":"Eve","email":"eve-$RUN@test.example","has_password":true,"platform_role":"user","is_admin":false,...}

as alice
GET /v1/me
200 {"id":"$ALICE_USER_ID","email":"$ALICE_EMAIL","team_id":"$ALICE_TEAM_ID",...}

PATCH /v1/me {"name":"<script>"}
400 {"error":{"code":"invalid_request","message":"~name",...}}

as nobody
POST /v1/auth/login {"email":"  $ALICE_EMAIL ","password":"$ALICE_PASSWORD","client":"cli"}
200 {"token":"$T1","refresh_token":"$R1","session_id":"~^ses-","expires_in":3600,...}

POST /v1/auth/refresh {"refresh_token":"$R1"}
200 {"token":"$T2","refresh_token":"$R2",...}

POST /v1/auth/refresh {"refresh_token":"$R2"}
200 {"token":"$T3","refresh_token":"$R3",...}

POST /v1/auth/refresh {"refresh_token":"not one"}
401 {"error":{"code":"unauthorized",...}}

as bearer $T3
GET /v1/me
200 {"email":"$ALICE_EMAIL",...}

POST /v1/auth/logout {}
204 empty

# The access token ends with its session, at once.
GET /v1/me
401 {"error":{"code":"unauthorized",...}}

as nobody
POST /v1/auth/refresh {"refresh_token":"$R3"}
401 {"error":{"code":"unauthorized",...}}

POST /v1/auth/login {"email":"$ALICE_EMAIL","password":""}
400 {"error":{"code":"invalid_request","message":"~password",...}}

POST /v1/auth/login {"email":"not an address","password":"whatever it is"}
400 {"error":{"code":"invalid_request","message":"~email",...}}

# Bad sign-ups change nothing and name the field.
POST /v1/auth/signup {"email":"x@test.example","password":"short","name":"X"}
400 {"error":{"code":"invalid_request","message":"~password",...}}

POST /v1/auth/signup {"email":"x@test.example","password":"password","name":"X"}
400 {"error":{"code":"invalid_request","message":"~password",...}}

POST /v1/auth/signup {"email":"x y@test.example","password":"a long enough one","name":"X"}
400 {"error":{"code":"invalid_request","message":"~email",...}}

POST /v1/auth/signup {"email":"x@test.example","password":"a long enough one"}
400 {"error":{"code":"invalid_request","message":"~name",...}}
