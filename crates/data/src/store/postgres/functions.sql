-- What appends and the sequencer do, as functions: the server plans each statement once per connection instead of once per
-- append, and does so behind proxies that pool transactions too, which prepared statements do not.
--
-- They are VOLATILE: under READ COMMITTED each statement in them has a snapshot of its own, as if it had been sent by itself.
-- A plan may be made while a table is empty and is used when it is large: so sequential scans are off, and nothing is compiled
-- for a statement that only looks expensive by that.

-- Takes the locks of words in their order, makes the streams that are not there, and locks all of them in the order of their
-- names. For READ COMMITTED.
CREATE FUNCTION {s}.lock_streams(words bigint[], alone boolean[], names text[])
    RETURNS TABLE (id bigint, name text, version bigint, hash bytea)
    LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM CASE WHEN w.alone THEN pg_advisory_xact_lock(w.word) ELSE pg_advisory_xact_lock_shared(w.word) END
        FROM unnest($1, $2) AS w (word, alone);
    INSERT INTO {s}.stream (name)
        SELECT n FROM unnest($3) AS g (n) WHERE NOT EXISTS (SELECT FROM {s}.stream AS s WHERE s.name = n)
        ORDER BY n COLLATE "C" ON CONFLICT (name) DO NOTHING;
    RETURN QUERY SELECT s.id, s.name, s.version, s.hash FROM {s}.stream AS s WHERE s.name = ANY ($3)
        ORDER BY s.name FOR UPDATE;
END $$;

-- The same for SERIALIZABLE. A row that is upserted is locked, or refused where it is newer than the snapshot, and nothing is
-- *read*: a read would be remembered for whole pages of an index, and unrelated transactions be in each other's way by that.
CREATE FUNCTION {s}.hold_streams(words bigint[], alone boolean[], names text[])
    RETURNS TABLE (id bigint, name text, version bigint, hash bytea)
    LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM CASE WHEN w.alone THEN pg_advisory_xact_lock(w.word) ELSE pg_advisory_xact_lock_shared(w.word) END
        FROM unnest($1, $2) AS w (word, alone);
    RETURN QUERY INSERT INTO {s}.stream AS s (name) SELECT n FROM unnest($3) AS g (n) ORDER BY n COLLATE "C"
        ON CONFLICT (name) DO UPDATE SET version = s.version RETURNING s.id, s.name, s.version, s.hash;
END $$;

-- Events that are known by their keys.
CREATE FUNCTION {s}.known_events(keys bytea[])
    RETURNS TABLE (key bytea, id bigint, body bytea)
    LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT e.key, e.id, e.body FROM {s}.event AS e WHERE e.key = ANY ($1);
END $$;

-- Writes events in their order, and what is now the end of their streams, by the streams' ids.
CREATE FUNCTION {s}.write_events(streams bigint[], versions bigint[], keys bytea[], kinds text[], categories text[],
        tags text[], bodies bytea[], ends bigint[], newest bigint[], hashes bytea[])
    RETURNS TABLE (id bigint, stream bigint, version bigint)
    LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    UPDATE {s}.stream AS s SET version = g.version, hash = g.hash
        FROM unnest($8, $9, $10) AS g (id, version, hash) WHERE s.id = g.id;
    RETURN QUERY WITH made AS (
        INSERT INTO {s}.event AS e (stream, version, key, kind, category, tags, body)
            SELECT g.stream, g.version, g.key, g.kind, g.category, string_to_array(g.tags, ' '), g.body
            FROM unnest($1, $2, $3, $4, $5, $6, $7)
                WITH ORDINALITY AS g (stream, version, key, kind, category, tags, body, n)
            ORDER BY g.n
            RETURNING e.id, e.stream, e.version),
        queued AS (INSERT INTO {s}.pending (event, first) SELECT m.id, min(m.id) OVER () FROM made AS m)
        SELECT m.id, m.stream, m.version FROM made AS m;
END $$;

-- The same for SERIALIZABLE: streams by their names, for the reason above, and events whose keys are known left out, so that
-- nobody has to read before.
CREATE FUNCTION {s}.write_held_events(streams bigint[], versions bigint[], keys bytea[], kinds text[], categories text[],
        tags text[], bodies bytea[], ends text[], newest bigint[], hashes bytea[])
    RETURNS TABLE (id bigint, stream bigint, version bigint)
    LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO {s}.stream AS s (name, version, hash)
        SELECT g.name, g.version, g.hash FROM unnest($8, $9, $10) AS g (name, version, hash) ORDER BY g.name COLLATE "C"
        ON CONFLICT (name) DO UPDATE SET version = excluded.version, hash = excluded.hash;
    RETURN QUERY WITH made AS (
        INSERT INTO {s}.event AS e (stream, version, key, kind, category, tags, body)
            SELECT g.stream, g.version, g.key, g.kind, g.category, string_to_array(g.tags, ' '), g.body
            FROM unnest($1, $2, $3, $4, $5, $6, $7)
                WITH ORDINALITY AS g (stream, version, key, kind, category, tags, body, n)
            ORDER BY g.n
            ON CONFLICT (key) DO NOTHING
            RETURNING e.id, e.stream, e.version),
        queued AS (INSERT INTO {s}.pending (event, first) SELECT m.id, min(m.id) OVER () FROM made AS m)
        SELECT m.id, m.stream, m.version FROM made AS m;
END $$;

-- One run of the sequencer under that lock, and the end of the log behind it. Whoever listens on the channel is told if
-- positions were given; nobody is without a channel.
CREATE FUNCTION {s}.give_positions(lock bigint, channel text)
    RETURNS TABLE ("position" bigint, event bigint)
    LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    given bigint;
BEGIN
    PERFORM pg_advisory_xact_lock($1);
    WITH taken AS (DELETE FROM {s}.pending RETURNING event, coalesce(first, event) AS first),
        numbered AS (SELECT event, row_number() OVER (ORDER BY first, event) AS n FROM taken),
        placed AS (INSERT INTO {s}.log (position, event)
            SELECT (SELECT coalesce(max(position), 0) FROM {s}.log) + n, event FROM numbered RETURNING position)
        SELECT count(*) INTO given FROM placed;
    IF given > 0 AND $2 IS NOT NULL THEN
        PERFORM pg_notify($2, '');
    END IF;
    RETURN QUERY SELECT l.position, l.event FROM {s}.log AS l ORDER BY l.position DESC LIMIT 1;
END $$;
