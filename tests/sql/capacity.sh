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
