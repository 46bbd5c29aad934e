-- Times are Unix seconds (double precision). Ids of entities are bytea: PostgreSQL's text has no NUL, and bytes sort
-- as Python sorts what they encode, whatever the database's collation. Other texts come with NULs escaped (text.py).

-- Entities -----------------------------------------------------------------------------------------
-- A body of NULL is a tombstone: it keeps the version that the removal took, so versions never go back.
CREATE TABLE entity (
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    version bigint NOT NULL,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    expires_at double precision NOT NULL DEFAULT 0,  -- 0: never
    body bytea,
    PRIMARY KEY (kind, id)
) WITH (fillfactor = 90);
CREATE INDEX entity_expiry ON entity (expires_at) WHERE expires_at > 0;

-- Outbox -------------------------------------------------------------------------------------------
-- A queue: what is in it is on its way to the bus. `id` is taken while the entities' rows are locked, so that for one
-- entity it grows in the order of the commits; over all of them it has gaps and may appear out of order.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at double precision NOT NULL,
    topic text NOT NULL,
    partition integer,
    key bytea,
    value bytea,
    headers bytea  -- MessagePack array of [name, value]; NULL: none
) WITH (
    -- Rows live for milliseconds; without an early vacuum each look at the front would pass over the dead.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000
);

-- Commit what a batch of decisions came to. Called as one statement, so that no lock waits for a client.
--
-- The arrays of keys are sorted, which keeps instances from deadlocks. `seen` is the row's xmin as the decisions saw
-- it, NULL for no row: if one is no longer so, nothing is done (serialization_failure) and the batch decides anew.
-- `writes` false: the key was only read. `announce`: tell the relay, which is in another process.
CREATE FUNCTION commit_batch(
    kinds text[], ids bytea[], seen xid[], writes boolean[], versions bigint[], created double precision[],
    updated double precision[], expires double precision[], bodies bytea[],
    at double precision, topics text[], partitions integer[], keys bytea[], vals bytea[], heads bytea[],
    announce boolean
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    k record;
BEGIN
    FOR k IN
        SELECT * FROM unnest(kinds, ids, seen, writes, versions, created, updated, expires, bodies)
            AS u (kind, id, seen, writes, version, created_at, updated_at, expires_at, body)
    LOOP
        IF k.seen IS NULL THEN
            -- There is no row to lock: who reads that there is none, and who makes one, meet here.
            PERFORM pg_advisory_xact_lock(hashtextextended(k.kind || encode(k.id, 'escape'), 0));
            IF k.writes THEN
                INSERT INTO entity (kind, id, version, created_at, updated_at, expires_at, body)
                VALUES (k.kind, k.id, k.version, k.created_at, k.updated_at, k.expires_at, k.body)
                ON CONFLICT DO NOTHING;
            ELSE
                PERFORM 1 WHERE NOT EXISTS (SELECT 1 FROM entity e WHERE e.kind = k.kind AND e.id = k.id);
            END IF;
        ELSIF k.writes THEN
            UPDATE entity e SET version = k.version, created_at = k.created_at, updated_at = k.updated_at,
                expires_at = k.expires_at, body = k.body
            WHERE e.kind = k.kind AND e.id = k.id AND e.xmin = k.seen;
        ELSE
            PERFORM 1 FROM entity e WHERE e.kind = k.kind AND e.id = k.id AND e.xmin = k.seen FOR SHARE;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'an entity was changed meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END LOOP;
    -- Every row is locked by now.
    IF cardinality(topics) > 0 THEN
        INSERT INTO outbox (at, topic, partition, key, value, headers)
        SELECT at, u.topic, u.partition, u.key, u.value, u.headers
        FROM unnest(topics, partitions, keys, vals, heads) WITH ORDINALITY
            AS u (topic, partition, key, value, headers, n)
        ORDER BY u.n;
        IF announce THEN
            PERFORM pg_notify('weir_outbox', '');
        END IF;
    END IF;
END
$$;

-- Search index -------------------------------------------------------------------------------------
-- `words` is made by us and not by to_tsvector: the same words are found on every engine, in any language.
CREATE TABLE document (
    type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    deleted boolean NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    bio text NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (type, id)
);
CREATE INDEX document_words ON document USING gin (words);

-- Deliveries ---------------------------------------------------------------------------------------
CREATE TABLE delivery (
    id text COLLATE "C" PRIMARY KEY,
    channel text NOT NULL,
    endpoint text COLLATE "C" NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    source text NOT NULL,
    payload bytea NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL,
    due_at double precision NOT NULL,
    first_at double precision NOT NULL,
    last_at double precision NOT NULL,
    error text NOT NULL,
    -- Which instance makes the attempt, and until when the others leave it, and its endpoint, alone.
    claimed_by text NOT NULL DEFAULT '',
    claimed_until double precision NOT NULL DEFAULT 0
);
CREATE INDEX delivery_pending ON delivery (endpoint, due_at, id) WHERE state = 'pending';
CREATE INDEX delivery_claimed ON delivery (endpoint, claimed_until) WHERE state = 'pending' AND claimed_by <> '';
CREATE INDEX delivery_state ON delivery (state, last_at);

-- What Kafka has no place for -----------------------------------------------------------------------
CREATE TABLE attempt (
    grp text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    offset_ bigint NOT NULL,
    attempts integer NOT NULL,
    due_at double precision NOT NULL,
    first_at double precision NOT NULL,
    last_at double precision NOT NULL,
    error text NOT NULL,
    PRIMARY KEY (grp, topic, partition, offset_)
);
CREATE TABLE dropped (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    offset_ bigint NOT NULL,
    PRIMARY KEY (topic, partition, offset_)
);
