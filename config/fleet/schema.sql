-- What a fleet of msrecd devices tells, in PostgreSQL 15 or newer: psql -v ON_ERROR_STOP=1 -f schema.sql
-- Run it again after an upgrade; nothing that is stored is touched.
--
-- A consumer hands over each MQTT message, msrecd.take(topic, payload), commits, and only then acknowledges. Messages may
-- come more than once: an event is stored once, a state only when it is newer. What cannot be read goes to
-- msrecd.refused with the reason, so that it blocks nothing. How to ask: the views at the end.

CREATE SCHEMA IF NOT EXISTS msrecd;
SET search_path = msrecd;

-- Who there is -----------------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS device (
    device          text PRIMARY KEY,
    site            text,  -- yours to fill in
    availability    text,  -- online | offline
    availability_at timestamptz,
    numbered_anew_at timestamptz,  -- when an event came with a number that another one had
    first_seen      timestamptz NOT NULL DEFAULT now()
);

-- The bridge of a site's broker: msrecd/bridge/<site>, 1 or 0.
CREATE TABLE IF NOT EXISTS site (
    site      text PRIMARY KEY,
    connected boolean NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);

-- What happened ----------------------------------------------------------------------------------------------------

-- The time belongs to the key: a device that was set up anew, on an empty card, begins its numbers again; a copy of an
-- event has its time, too. `arrival` grows in the order in which events came.
CREATE TABLE IF NOT EXISTS event (
    arrival    bigint GENERATED ALWAYS AS IDENTITY,
    event_id   text NOT NULL,
    ts         timestamptz NOT NULL,
    device     text NOT NULL,
    boot       text NOT NULL,
    number     bigint NOT NULL,
    path       text NOT NULL,  -- recorder/<name>, device, error
    event_type text NOT NULL,
    received   timestamptz NOT NULL DEFAULT now(),
    body       jsonb NOT NULL,
    PRIMARY KEY (event_id, ts)
);
CREATE INDEX IF NOT EXISTS event_of_device ON event (device, ts);

-- A chunk may be told by two events: one before a crash, one by the recovery after it.
CREATE TABLE IF NOT EXISTS chunk (
    device       text NOT NULL,
    recording_id text NOT NULL,
    seq          integer NOT NULL,
    recorder     text NOT NULL,
    started      timestamptz NOT NULL,
    ended        timestamptz NOT NULL,
    duration_s   double precision NOT NULL,
    bytes        bigint NOT NULL,
    synchronized boolean NOT NULL,
    PRIMARY KEY (device, recording_id, seq)
);
CREATE INDEX IF NOT EXISTS chunk_by_time ON chunk (device, recorder, started);

CREATE TABLE IF NOT EXISTS offload (
    device       text NOT NULL,
    recording_id text NOT NULL,
    seq          integer NOT NULL,
    at           timestamptz NOT NULL,
    PRIMARY KEY (device, recording_id, seq)
);

-- What is true -----------------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS state (
    device   text NOT NULL,
    path     text NOT NULL,  -- daemon, devices, health, recorder/<name>
    rev      bigint,         -- of recorders
    received timestamptz NOT NULL DEFAULT now(),
    body     jsonb NOT NULL,
    PRIMARY KEY (device, path)
);

-- What was planned -------------------------------------------------------------------------------------------------

-- Written by set_plan(); no row passes midnight (UTC).
CREATE TABLE IF NOT EXISTS plan (
    device   text NOT NULL,
    recorder text NOT NULL,
    start    timestamptz NOT NULL,
    stop     timestamptz NOT NULL CHECK (stop > start),
    PRIMARY KEY (device, recorder, start)
);

-- Sums, kept as chunks and gaps come ------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS day (
    device           text NOT NULL,
    recorder         text NOT NULL,
    day              date NOT NULL,  -- UTC
    planned_s        double precision NOT NULL DEFAULT 0,
    recorded_s       double precision NOT NULL DEFAULT 0,  -- length of the files
    in_plan_s        double precision NOT NULL DEFAULT 0,  -- the part of it that was planned
    unsynchronized_s double precision NOT NULL DEFAULT 0,  -- the part of it whose clock was not trusted
    chunks           bigint NOT NULL DEFAULT 0,            -- that began on this day
    bytes            bigint NOT NULL DEFAULT 0,            -- of these
    offloaded_chunks bigint NOT NULL DEFAULT 0,
    offloaded_bytes  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (device, recorder, day)
);
CREATE INDEX IF NOT EXISTS day_by_day ON day (day);

CREATE TABLE IF NOT EXISTS gap_day (
    device   text NOT NULL,
    recorder text NOT NULL,
    day      date NOT NULL,
    reason   text NOT NULL,
    gaps     bigint NOT NULL,
    gap_s    double precision NOT NULL,
    PRIMARY KEY (device, recorder, day, reason)
);
CREATE INDEX IF NOT EXISTS gap_by_day ON gap_day (day);

-- Messages that could not be read.
CREATE TABLE IF NOT EXISTS refused (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received timestamptz NOT NULL DEFAULT now(),
    topic    text NOT NULL,
    payload  bytea NOT NULL,
    reason   text NOT NULL
);

-- Taking messages --------------------------------------------------------------------------------------------------

-- A date of UTC, whatever the session's time zone.
CREATE OR REPLACE FUNCTION utc_day(at timestamptz) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (at AT TIME ZONE 'UTC')::date;
CREATE OR REPLACE FUNCTION utc_midnight(day date) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN day::timestamp AT TIME ZONE 'UTC';

-- The part of a stretch on each day. An end that is not after the beginning is the beginning.
CREATE OR REPLACE FUNCTION pieces(started timestamptz, ended timestamptz)
    RETURNS TABLE (day date, begins timestamptz, ends timestamptz) LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT d, greatest(started, utc_midnight(d)), least(greatest(started, ended), utc_midnight(d + 1))
    FROM (SELECT utc_day(started) + i AS d FROM generate_series(0, utc_day(greatest(started, ended)) - utc_day(started)) AS i) AS days
    WHERE utc_midnight(d) < ended OR d = utc_day(started)
$$;

-- What a new event says beyond itself. (Compiling these statements took a hundred times as long as running them: no JIT.)
CREATE OR REPLACE FUNCTION after_events() RETURNS trigger LANGUAGE plpgsql SET search_path = msrecd SET jit = off AS $$
BEGIN
    INSERT INTO chunk (device, recording_id, seq, recorder, started, ended, duration_s, bytes, synchronized)
    SELECT device, body->>'recording_id', (body->>'seq')::integer, substr(path, 10), (body->>'started')::timestamptz,
           (body->>'ended')::timestamptz, (body->>'duration_s')::double precision, (body->>'bytes')::bigint,
           body->>'clock' = 'synchronized'
    FROM fresh WHERE event_type = 'chunk' AND path LIKE 'recorder/%' ORDER BY arrival
    ON CONFLICT DO NOTHING;

    INSERT INTO gap_day AS sum (device, recorder, day, reason, gaps, gap_s)
    SELECT device, substr(path, 10), utc_day(ts), body->>'reason', count(*), sum((body->>'duration_s')::double precision)
    FROM fresh WHERE event_type = 'gap' AND path LIKE 'recorder/%' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (device, recorder, day, reason)
        DO UPDATE SET gaps = sum.gaps + excluded.gaps, gap_s = sum.gap_s + excluded.gap_s;

    INSERT INTO offload (device, recording_id, seq, at)
    SELECT device, body->>'recording_id', (body->>'seq')::integer, ts
    FROM fresh WHERE event_type = 'offload' AND path LIKE 'recorder/%' ORDER BY arrival
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER after_events AFTER INSERT ON event REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION after_events();

-- Days are changed in one order, so that two consumers never wait for each other.
CREATE OR REPLACE FUNCTION after_chunks() RETURNS trigger LANGUAGE plpgsql SET search_path = msrecd SET jit = off AS $$
BEGIN
    INSERT INTO day AS sum (device, recorder, day, recorded_s, in_plan_s, unsynchronized_s, chunks, bytes,
                            offloaded_chunks, offloaded_bytes)
    SELECT part.device, part.recorder, part.day, sum(part.recorded_s), sum(part.in_plan_s),
           sum(CASE WHEN part.synchronized THEN 0 ELSE part.recorded_s END),
           count(*) FILTER (WHERE part.is_first), coalesce(sum(part.bytes) FILTER (WHERE part.is_first), 0),
           count(*) FILTER (WHERE part.is_first AND part.is_offloaded),
           coalesce(sum(part.bytes) FILTER (WHERE part.is_first AND part.is_offloaded), 0)
    FROM (
        SELECT fresh.device, fresh.recorder, piece.day, fresh.bytes, fresh.synchronized,
               piece.begins = fresh.started AS is_first,
               EXISTS (SELECT FROM offload WHERE (offload.device, offload.recording_id, offload.seq)
                       = (fresh.device, fresh.recording_id, fresh.seq)) AS is_offloaded,
               CASE WHEN fresh.ended > fresh.started
                    THEN fresh.duration_s * (extract(epoch FROM piece.ends - piece.begins)
                                             / extract(epoch FROM fresh.ended - fresh.started))::double precision
                    ELSE fresh.duration_s END AS recorded_s,
               planned.in_plan_s
        FROM fresh, pieces(fresh.started, fresh.ended) AS piece, LATERAL (
            SELECT coalesce(sum(extract(epoch FROM least(plan.stop, piece.ends) - greatest(plan.start, piece.begins))),
                            0)::double precision AS in_plan_s
            FROM plan
            WHERE plan.device = fresh.device AND plan.recorder = fresh.recorder
              AND plan.start >= utc_midnight(piece.day) AND plan.start < piece.ends AND plan.stop > piece.begins
        ) AS planned
    ) AS part
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (device, recorder, day) DO UPDATE SET
        recorded_s = sum.recorded_s + excluded.recorded_s, in_plan_s = sum.in_plan_s + excluded.in_plan_s,
        unsynchronized_s = sum.unsynchronized_s + excluded.unsynchronized_s,
        chunks = sum.chunks + excluded.chunks, bytes = sum.bytes + excluded.bytes,
        offloaded_chunks = sum.offloaded_chunks + excluded.offloaded_chunks,
        offloaded_bytes = sum.offloaded_bytes + excluded.offloaded_bytes;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER after_chunks AFTER INSERT ON chunk REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION after_chunks();

CREATE OR REPLACE FUNCTION after_offloads() RETURNS trigger LANGUAGE plpgsql SET search_path = msrecd SET jit = off AS $$
BEGIN
    UPDATE day SET offloaded_chunks = day.offloaded_chunks + done.chunks, offloaded_bytes = day.offloaded_bytes + done.bytes
    FROM (SELECT chunk.device, chunk.recorder, utc_day(chunk.started) AS day, count(*) AS chunks, sum(chunk.bytes) AS bytes
          FROM fresh JOIN chunk USING (device, recording_id, seq) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3) AS done
    WHERE (day.device, day.recorder, day.day) = (done.device, done.recorder, done.day);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER after_offloads AFTER INSERT ON offload REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION after_offloads();

CREATE OR REPLACE FUNCTION take_event(of_device text, of_path text, told jsonb) RETURNS text
    LANGUAGE plpgsql SET search_path = msrecd AS $$
DECLARE
    id text[] := regexp_match(told->>'event_id', '^([a-z0-9-]+)/([^/]+)/([0-9]{6,18})$');
BEGIN
    IF id IS NULL OR id[1] <> of_device THEN
        RAISE EXCEPTION 'event_id: not one of this device';
    END IF;
    IF told->>'event_type' IS NULL OR told->>'ts' IS NULL THEN
        RAISE EXCEPTION 'event_type or ts: missing';
    END IF;
    INSERT INTO event (event_id, ts, device, boot, number, path, event_type, body)
    VALUES (told->>'event_id', (told->>'ts')::timestamptz, of_device, id[2], id[3]::bigint, of_path, told->>'event_type', told)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'known';
    END IF;
    IF EXISTS (SELECT FROM event WHERE event_id = told->>'event_id' AND ts <> (told->>'ts')::timestamptz) THEN
        UPDATE device SET numbered_anew_at = now() WHERE device = of_device;
    END IF;
    RETURN 'event';
END $$;

CREATE OR REPLACE FUNCTION take_state(of_device text, of_path text, told jsonb) RETURNS text
    LANGUAGE plpgsql SET search_path = msrecd AS $$
BEGIN
    IF told IS NULL THEN  -- cleared: the recorder is gone
        DELETE FROM state WHERE device = of_device AND path = of_path;
        RETURN 'cleared';
    END IF;
    -- A device on an empty card begins its numbers again, but its state is of a later time.
    INSERT INTO state (device, path, rev, body) VALUES (of_device, of_path, (told->>'rev')::bigint, told)
    ON CONFLICT (device, path) DO UPDATE SET rev = excluded.rev, body = excluded.body, received = excluded.received
        WHERE state.rev IS NULL OR excluded.rev IS NULL OR excluded.rev > state.rev
           OR (excluded.body->>'since')::timestamptz > (state.body->>'since')::timestamptz;
    RETURN CASE WHEN FOUND THEN 'state' ELSE 'old' END;
END $$;

-- Takes one MQTT message and says what became of it: event, known, state, old, cleared, availability, site, other, refused.
-- SECURITY DEFINER: a consumer needs the right to call this, and no other.
CREATE OR REPLACE FUNCTION take(topic text, payload bytea) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = msrecd, pg_temp AS $$
DECLARE
    part text[] := regexp_match(topic, '^msrecd/v1/([a-z0-9-]{1,63})/(availability|event|state)(?:/(.+))?$');
    told jsonb;
    why text;
BEGIN
    IF topic LIKE 'msrecd/bridge/%' THEN
        INSERT INTO site (site, connected) VALUES (substr(topic, 15), payload = '1')
        ON CONFLICT (site) DO UPDATE SET connected = excluded.connected, at = excluded.at
            WHERE site.connected <> excluded.connected;
        RETURN 'site';
    END IF;
    -- An empty event is no event: msrecd check-broker tries with it whether a device may tell any.
    IF part IS NULL OR part[1] = 'group' OR (part[2] = 'event' AND payload = '') THEN
        RETURN 'other';
    END IF;
    INSERT INTO device (device) VALUES (part[1]) ON CONFLICT DO NOTHING;
    BEGIN
        IF part[2] = 'availability' THEN
            UPDATE device SET availability = convert_from(payload, 'UTF8'), availability_at = now()
            WHERE device = part[1] AND availability IS DISTINCT FROM convert_from(payload, 'UTF8');
            RETURN 'availability';
        END IF;
        IF payload <> '' THEN
            told := convert_from(payload, 'UTF8')::jsonb;
            IF jsonb_typeof(told) <> 'object' THEN
                RAISE EXCEPTION 'not a JSON object';
            END IF;
        END IF;
        IF part[2] = 'state' THEN
            RETURN take_state(part[1], part[3], told);
        END IF;
        RETURN take_event(part[1], part[3], told);
    EXCEPTION
        -- What is wrong with the message, not with the database: that is the consumer's to try again.
        WHEN data_exception OR integrity_constraint_violation OR raise_exception OR program_limit_exceeded THEN
            GET STACKED DIAGNOSTICS why = MESSAGE_TEXT;
            INSERT INTO refused (topic, payload, reason) VALUES (topic, payload, why);
            RETURN 'refused';
    END;
END $$;

-- Plans ------------------------------------------------------------------------------------------------------------

-- windows: what `msrecd schedule --json --days N` prints on the device. Replaces what was planned from `since` on.
-- A recorder that records always has one window that is as long as the time it is meant for.
CREATE OR REPLACE FUNCTION set_plan(of_device text, windows jsonb, since timestamptz DEFAULT now()) RETURNS bigint
    LANGUAGE plpgsql SET search_path = msrecd AS $$
DECLARE
    changed bigint;
BEGIN
    UPDATE plan SET stop = since WHERE device = of_device AND start < since AND stop > since;
    DELETE FROM plan WHERE device = of_device AND start >= since;
    INSERT INTO plan (device, recorder, start, stop)
    SELECT of_device, one->>'recorder', greatest(piece.begins, since), piece.ends
    FROM jsonb_array_elements(windows) AS one, pieces((one->>'start')::timestamptz, (one->>'stop')::timestamptz) AS piece
    WHERE piece.ends > since AND piece.ends > piece.begins
      AND coalesce(one->>'action', 'record') = 'record';  -- while it is armed, nobody knows what it will record
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM sum_days(of_device, utc_day(since));
    RETURN changed;
END $$;

-- Adds up again what was planned from a day on, and what of it was recorded.
CREATE OR REPLACE FUNCTION sum_days(of_device text, since date) RETURNS void
    LANGUAGE sql SET search_path = msrecd AS $$
    UPDATE day SET planned_s = 0, in_plan_s = 0 WHERE device = of_device AND day >= since;
    INSERT INTO day (device, recorder, day, planned_s, in_plan_s)
    SELECT of_device, recorder, planned.day, planned_s, coalesce(in_plan_s, 0)
    FROM (SELECT recorder, utc_day(start) AS day, sum(extract(epoch FROM stop - start))::double precision AS planned_s
          FROM plan WHERE device = of_device AND start >= utc_midnight(since) GROUP BY 1, 2) AS planned
    LEFT JOIN (
        SELECT recorder, utc_day(start) AS day,
               sum(extract(epoch FROM least(stop, ended) - greatest(start, started)))::double precision AS in_plan_s
        FROM chunk JOIN plan USING (device, recorder)
        WHERE device = of_device AND start >= utc_midnight(since) AND start < ended AND stop > started GROUP BY 1, 2
    ) AS kept USING (recorder, day)
    ORDER BY 1, 2, 3
    ON CONFLICT (device, recorder, day) DO UPDATE SET planned_s = excluded.planned_s, in_plan_s = excluded.in_plan_s
$$;

-- Deletes events and chunks of before a day; the sums stay. Call it daily.
CREATE OR REPLACE FUNCTION forget(before date) RETURNS void LANGUAGE sql SET search_path = msrecd AS $$
    DELETE FROM event WHERE ts < utc_midnight(before);
    DELETE FROM chunk WHERE ended < utc_midnight(before);
    DELETE FROM offload WHERE at < utc_midnight(before);
    DELETE FROM plan WHERE stop < utc_midnight(before);
    DELETE FROM refused WHERE received < utc_midnight(before)
$$;

-- Questions --------------------------------------------------------------------------------------------------------

-- Of what was planned on a day, how much was recorded? `coverage` is null where nothing was planned.
CREATE OR REPLACE VIEW coverage AS
    SELECT device, recorder, day, planned_s, recorded_s, in_plan_s,
           greatest(planned_s - in_plan_s, 0) AS missing_s,
           CASE WHEN planned_s > 0 THEN least(in_plan_s / planned_s, 1) END AS coverage,
           chunks, bytes, unsynchronized_s
    FROM day;

-- Which box recorded nothing although it should have?
CREATE OR REPLACE VIEW recorded_nothing AS
    SELECT day, device, recorder, planned_s FROM day WHERE planned_s > 0 AND in_plan_s = 0 AND day <= utc_day(now());

-- What is missing, and why? Days of the moment at which the gap was told.
CREATE OR REPLACE VIEW gaps_by_reason AS
    SELECT day, device, recorder, reason, gaps, gap_s FROM gap_day;

-- Who says nothing? Devices tell their health every minute. `site_connected` false: it is the line, not the device.
CREATE OR REPLACE VIEW silent_devices AS
    SELECT device, site, availability, last_seen, extract(epoch FROM now() - last_seen)::bigint AS silent_s,
           site.connected AS site_connected
    FROM device LEFT JOIN site USING (site)
    LEFT JOIN (SELECT device, max(received) AS last_seen FROM state GROUP BY device) AS said USING (device)
    WHERE last_seen IS NULL OR last_seen < now() - interval '5 minutes' OR availability IS DISTINCT FROM 'online';

-- Where is the disk full next?
CREATE OR REPLACE VIEW storage_left AS
    SELECT device, received AS as_of, (body#>>'{disk,free_bytes}')::bigint AS free_bytes,
           (body#>>'{disk,total_bytes}')::bigint AS total_bytes,
           (body#>>'{disk,recordings_bytes}')::bigint AS recordings_bytes,
           (body#>>'{disk,seconds_left_estimate}')::double precision AS seconds_left
    FROM state WHERE path = 'health';

-- Whose times can be believed?
CREATE OR REPLACE VIEW clock_trust AS
    SELECT device, state.body->>'clock' AS clock, state.received AS as_of,
           coalesce(week.unsynchronized_s, 0) AS unsynchronized_s_of_7_days,
           coalesce(week.recorded_s, 0) AS recorded_s_of_7_days
    FROM state LEFT JOIN (
        SELECT device, sum(unsynchronized_s) AS unsynchronized_s, sum(recorded_s) AS recorded_s
        FROM day WHERE day > utc_day(now()) - 7 GROUP BY device
    ) AS week USING (device)
    WHERE state.path = 'health';

-- What is still only on the card? Of recorders that have ever off-loaded; chunks that rotation took count as well.
CREATE OR REPLACE VIEW offload_backlog AS
    SELECT device, recorder, sum(chunks - offloaded_chunks)::bigint AS chunks, sum(bytes - offloaded_bytes)::bigint AS bytes,
           min(day) FILTER (WHERE chunks > offloaded_chunks) AS oldest_day
    FROM day GROUP BY device, recorder HAVING sum(offloaded_chunks) > 0;

-- Which device was set up anew on an empty card (or shares its name with another)?
CREATE OR REPLACE VIEW numbered_anew AS SELECT device, numbered_anew_at FROM device WHERE numbered_anew_at IS NOT NULL;

-- Rights -----------------------------------------------------------------------------------------------------------

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'msrecd_consumer') THEN CREATE ROLE msrecd_consumer NOLOGIN; END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'msrecd_reader') THEN CREATE ROLE msrecd_reader NOLOGIN; END IF;
END $$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA msrecd FROM PUBLIC;
GRANT USAGE ON SCHEMA msrecd TO msrecd_consumer, msrecd_reader;
GRANT EXECUTE ON FUNCTION take(text, bytea) TO msrecd_consumer;
GRANT EXECUTE ON FUNCTION utc_day(timestamptz), utc_midnight(date) TO msrecd_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA msrecd TO msrecd_reader;
