# capacity.sh - what a host can take, and what it holds: the formulas of spec 02 §5.5.
# shellcheck shell=bash

# capacity COLUMNS: memory, vCPUs and disk of such a host, with 100 %, 400 %, 100 % from the settings.
capacity() {
	sql -c "SELECT memory_mb || ' ' || vcpus || ' ' || disk_mb FROM host_capacity(jsonb_populate_record(NULL::hosts,
		'{\"reserve_memory_mb\":0,\"reserve_disk_mb\":0,$1}'), 100, 400, 100)"
}

big='"memory_mb":65536,"cpu_cores":16,"disk_gb":1000'
check "capacity: four vCPUs a core, a twelfth of the memory and a twentieth of the disk kept" equals "60075 64 972800" capacity "$big,\"accel\":\"kvm\""
check "capacity: emulated, one vCPU a core" equals "60075 16 972800" capacity "$big,\"accel\":\"tcg\""
check "capacity: 1 GiB and 10 GiB at least are kept" equals "3072 8 10240" capacity '"memory_mb":4096,"cpu_cores":2,"disk_gb":20,"accel":"kvm"'
check "capacity: the host's own ratios, rounded down" equals "6144 4 92160" capacity '"memory_mb":5120,"cpu_cores":3,"disk_gb":100,"accel":"tcg","overcommit_cpu":1.5,"overcommit_memory":1.5'
check "capacity: reserves" equals "2048 2 9216" capacity '"memory_mb":4096,"cpu_cores":2,"disk_gb":20,"accel":"tcg","reserve_memory_mb":1024,"reserve_disk_mb":1024'

H=33333333-3333-7333-8333-333333333333 T=44444444-4444-7444-8444-444444444444
sql <<END >/dev/null
INSERT INTO hosts (id, name) VALUES ('$H', 'capacity');
INSERT INTO teams (id, name, slug) VALUES ('$T', 'capacity', 'cccccc-cccccc');
INSERT INTO templates (id, team_id, name) VALUES ('$T', '$T', 'capacity');
INSERT INTO capsules (id, team_id, template_id, template_name, template_version, host_id, observed_state, residency, missing_from, accel, vcpus, memory_mb, disk_size_mb)
	SELECT gen_random_uuid(), '$T', '$T', 't', 1, '$H', state, residency, missing_from, accel, 2, 1000, 4000 FROM (VALUES
		('starting', NULL, NULL, NULL), ('running', NULL, NULL, 'tcg'), ('running', NULL, NULL, 'kvm'), ('pausing', 'ram', NULL, 'tcg'),
		('resuming', NULL, NULL, 'tcg'), ('hibernating', NULL, NULL, 'tcg'), ('paused', 'ram', NULL, 'tcg'), ('missing', NULL, 'running', 'tcg'),
		('paused', 'disk', NULL, 'tcg'), ('missing', 'disk', 'paused', 'tcg'), ('error', NULL, NULL, 'tcg')) v(state, residency, missing_from, accel);
END
# 8 of 11 hold memory: 7 × (1000 + 128) + 1000 + 64; all hold disk, half of it is counted
check "capacity: what is used" equals "8960 16 2 22000 11" sql -c "SELECT memory_mb || ' ' || vcpus || ' ' || starting || ' ' || disk_mb || ' ' || capsules FROM host_used('$H')"

# needed: hosts that take capsules, that have room for a usual one, that hold what there is, that are wanted within the bounds of the scaling (NULL: left out).
needed() { sql -c "SELECT concat_ws(' ', takes, with_room, needed, wanted) FROM hosts_needed(100, 400, 100)"; }
host_is() { sql -c "UPDATE hosts SET $1 WHERE id = '$H'" >/dev/null; }
bounds() { sql -c "UPDATE scaling SET min_hosts = $1, max_hosts = $2" >/dev/null; }
host_is "status = 'online', accel = 'kvm', memory_mb = 65536, cpu_cores = 16, disk_gb = 1000, free_disk_mb = 900000"
check "hosts needed: one holds it all" equals "1 1 1 1" needed
bounds 3 9
check "hosts wanted: not fewer than the least" equals "1 1 1 3" needed
host_is "reserve_memory_mb = 58000"
check "hosts needed: smaller ones, more of them; none has room" equals "1 0 5 5" needed
bounds NULL 2
check "hosts wanted: not more than the most" equals "1 0 5 2" needed
host_is "reserve_memory_mb = 0, free_disk_mb = 1536"
check "hosts needed: room is disk, too" equals "1 0 1 1" needed
host_is "schedulable = false"
check "hosts needed: nobody knows, when none takes capsules" equals "0 0" needed
bounds 0 2
check "hosts wanted: none at least says nothing" equals "0 0" needed
bounds 1 2
check "hosts wanted: the least, when none takes capsules" equals "0 0 1" needed
bounds NULL NULL
host_is "schedulable = true, free_disk_mb = 0, status = 'pending'"
