# health.t - what anybody may ask.

as nobody
GET /v1/health
200 {...}
Content-Type: ~^application/json
!Set-Cookie: x

GET /v1/nothing
404 {"error":{"code":"not_found","message":"~.","request_id":"$R"}}
X-Request-Id: $R

DELETE /v1/health
405 {"error":{"code":"method_not_allowed",...}}
Allow: ~GET
