-- ports.sql - which ports of a capsule are open to whom (spec 02 §2.8).

-- row: port_rule
--   port int4, visibility text, protocol text, label text?, host_header text

-- name: port_list :many port_rule
-- What was declared.
SELECT port, visibility, protocol, label, host_header FROM capsule_ports
 WHERE capsule_id = :capsule::uuid AND team_id = current_team() ORDER BY port;

-- name: port_publish :exec
-- Declares a port, or changes what was declared.
INSERT INTO capsule_ports (capsule_id, port, team_id, visibility, protocol, label, host_header)
VALUES (:capsule::uuid, :port::int4, current_team(), :visibility::text, :protocol::text, :label::text?, :host_header::text)
ON CONFLICT (capsule_id, port) DO UPDATE SET visibility = excluded.visibility, protocol = excluded.protocol,
       label = excluded.label, host_header = excluded.host_header;

-- name: port_close :one port_rule
-- Takes it back.
DELETE FROM capsule_ports WHERE capsule_id = :capsule::uuid AND port = :port::int4 AND team_id = current_team()
RETURNING port, visibility, protocol, label, host_header;

-- name: port_copy :exec
-- A copy's ports are declared as those of what it was copied from.
INSERT INTO capsule_ports (capsule_id, port, team_id, visibility, protocol, label, host_header)
SELECT :capsule::uuid, p.port, p.team_id, p.visibility, p.protocol, p.label, p.host_header
  FROM capsule_ports p WHERE p.capsule_id = :parent::uuid AND p.team_id = current_team();

-- row: port_house
--   state text, public_traffic bool, address text

-- name: port_home :one port_house
-- Where the capsule is, to be asked what listens in it.
SELECT c.observed_state AS state, c.public_traffic, coalesce(h.dial, '') AS address
  FROM capsules c LEFT JOIN hosts h ON h.id = c.host_id WHERE c.id = :capsule::uuid AND c.team_id = current_team();
