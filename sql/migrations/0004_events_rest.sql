-- 0004_events_rest.sql - an installation that slept over the end of its partitions goes on.
--
-- Then events of the present month stand in events_rest, and PostgreSQL refuses a partition for that month:
-- it is left out, and the next months get theirs. What stands in the rest is deleted by its age.
CREATE OR REPLACE FUNCTION events_partitions(keep_days int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = public, pg_temp AS $$
DECLARE
	first timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
	since timestamp;
	part text;
	waiting bool;
	n int := 0;
BEGIN
	FOR i IN 0..3 LOOP
		since := first + make_interval(months => i);
		part := 'events_' || to_char(since, 'YYYY_MM');
		CONTINUE WHEN to_regclass(part) IS NOT NULL;
		BEGIN
			EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', part,
				since AT TIME ZONE 'UTC', (since + interval '1 month') AT TIME ZONE 'UTC');
			n := n + 1;
		EXCEPTION WHEN check_violation THEN
			RAISE NOTICE '% is left out: events_rest has events of that month', part;
		END;
	END LOOP;
	FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_\d{4}_\d{2}$'
		AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => keep_days) LOOP
		EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE seq IS NULL)', part) INTO waiting;
		IF NOT waiting THEN
			EXECUTE format('DROP TABLE %I', part);
			n := n + 1;
		END IF;
	END LOOP;
	DELETE FROM events_rest WHERE (id, at) IN (SELECT id, at FROM events_rest
		WHERE at < now() - make_interval(days => keep_days) AND seq IS NOT NULL LIMIT 10000);
	RETURN n;
END $$;
