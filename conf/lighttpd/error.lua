-- error.lua - the answers that lighttpd gives by itself, in the API's own words.
--
-- Runs only as server.error-handler, never on a request that a program answers.
local slugs = {
	[400] = { "invalid_request", "The request is malformed" },
	[403] = { "forbidden", "You may not do this" },
	[404] = { "not_found", "No such object, or not yours" },
	[405] = { "method_not_allowed", "This path has no such method" },
	[408] = { "timeout", "It took too long" },
	[411] = { "length_required", "The body has no length" },
	[413] = { "too_large", "The body is too large" },
	[414] = { "uri_too_long", "The path is too long" },
	[416] = { "range_not_satisfiable", "The range is outside the file" },
	[417] = { "invalid_request", "Expect knows only 100-continue" },
	[431] = { "headers_too_large", "The headers are too large" },
	[500] = { "internal_error", "Something went wrong on our side" },
	[501] = { "unsupported", "Not supported here" },
	[502] = { "unavailable", "Not available at the moment" },
	[503] = { "unavailable", "Not available at the moment" },
	[504] = { "timeout", "It took too long" },
	[505] = { "unsupported", "Not supported here" },
}

local r = lighty.r
local status = tonumber(r.req_env["REDIRECT_STATUS"] or "") or 404
if status == 500 or status == 502 then
	status = 503 -- a program died before it answered, or its socket is gone: try again
end
local e = slugs[status] or slugs[status < 500 and 400 or 500]
local id = r.req_header["X-Request-Id"] or ""
if not id:match("^[A-Za-z0-9._-]+$") or #id > 64 then
	id = string.format("%08x%08x", os.time(), math.random(0, 0xffffffff))
end

r.resp_header["Content-Type"] = "application/json"
r.resp_header["Cache-Control"] = "no-store"
r.resp_header["X-Request-Id"] = id
if status == 503 then
	r.resp_header["Retry-After"] = "2"
end
-- Clients of the E2B protocol read another shape (spec 06).
local path = r.req_attr["request.orig-uri"] or ""
if path:match("^/v2/") or path:match("^/sandboxes") or path:match("^/snapshots") or path:match("^/templates") or path:match("^/teams") then
	r.resp_body:set(string.format('{"code":%d,"message":"%s","error_code":"%s"}\n', status, e[2], e[1]))
else
	r.resp_body:set(string.format(
	    '{"error":{"code":"%s","message":"%s","request_id":"%s"}}\n', e[1], e[2], id))
end
return status
