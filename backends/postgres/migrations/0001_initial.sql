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

-- The bus will never take these (too large for it, say): kept for the operator, out of the way of the others.
CREATE TABLE outbox_refused (
    id bigint PRIMARY KEY,
    at double precision NOT NULL,
    topic text NOT NULL,
    partition integer,
    key bytea,
    value bytea,
    headers bytea,
    error text NOT NULL
);

-- Search index -------------------------------------------------------------------------------------
-- `live` answers queries. `building` is the index being built anew, NULL for none: whoever changes a document
-- changes it in both, under a shared lock of this one row.
CREATE TABLE search_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    live integer NOT NULL,
    building integer
);
INSERT INTO search_state (live) VALUES (1);
-- `words` is made by us and not by to_tsvector: the same words are found on every engine, in any language.
CREATE TABLE document (
    generation integer NOT NULL,
    type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    deleted boolean NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    bio text NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (generation, type, id)
);
CREATE INDEX document_words ON document USING gin (words);

-- Audit trail --------------------------------------------------------------------------------------
-- `sequence` and `hash` are the head: without them a cut-off tail would not show. Rows up to `dropped` are gone:
-- `dropped_hash` is the hash of the last of them, `signature` signs the two (the checkpoint).
CREATE TABLE audit_chain (
    chain integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    sequence bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL,
    dropped bigint NOT NULL DEFAULT 0,
    dropped_hash bytea NOT NULL,
    signature text NOT NULL DEFAULT '',
    CHECK (0 <= dropped AND dropped <= sequence)
);
-- No foreign key: chains are never deleted, and a check a row is not free.
-- The primary key is what no second writer of a chain can get around: it would have to take a sequence twice.
CREATE TABLE audit (
    chain integer NOT NULL,
    sequence bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    at double precision NOT NULL,
    subject text NOT NULL,
    action text NOT NULL,
    entity text NOT NULL,
    outcome text NOT NULL,
    request_id text NOT NULL,
    status bigint NOT NULL,
    client text NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (chain, sequence)
);
CREATE UNIQUE INDEX audit_id ON audit (id);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_subject ON audit (subject, at);
CREATE INDEX audit_action ON audit (action, at);
CREATE INDEX audit_entity ON audit (entity, at);

-- Append to a chain whose head the hashes were computed from; another head, or an id that came in by another chain,
-- is a serialization_failure, and the hashes are computed anew. Ids that are known are left out by the caller.
CREATE FUNCTION append_audit(
    of_chain text, seen bigint, sequences bigint[], ids text[], ats double precision[], subjects text[], actions text[],
    entities text[], outcomes text[], request_ids text[], statuses bigint[], clients text[], hashes bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    head record;
BEGIN
    INSERT INTO audit_chain (name, hash, dropped_hash)
    VALUES (of_chain, decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex')) ON CONFLICT (name) DO NOTHING;
    SELECT chain, sequence INTO head FROM audit_chain WHERE name = of_chain FOR UPDATE;
    IF head.sequence <> seen THEN
        RAISE EXCEPTION 'the chain has grown meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO audit (chain, sequence, id, at, subject, action, entity, outcome, request_id, status, client, hash)
    SELECT head.chain, u.* FROM unnest(sequences, ids, ats, subjects, actions, entities, outcomes, request_ids, statuses,
        clients, hashes) AS u;
    UPDATE audit_chain SET sequence = sequences[cardinality(sequences)], hash = hashes[cardinality(hashes)]
    WHERE chain = head.chain;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'the entry is known meanwhile' USING ERRCODE = 'serialization_failure';
END
$$;

-- Retention's way is the only one: first the checkpoint moves, then the rows up to it may go.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE FUNCTION audit_keeps_its_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.sequence > coalesce((SELECT dropped FROM audit_chain WHERE chain = OLD.chain), 0) THEN
        RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END
$$;
CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_keeps_its_rows();
CREATE TRIGGER audit_keeps_its_values BEFORE UPDATE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_keeps_its_chains BEFORE DELETE ON audit_chain
FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_chains_are_not_truncated BEFORE TRUNCATE ON audit_chain
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_goes_forward BEFORE UPDATE ON audit_chain FOR EACH ROW
WHEN (NEW.name <> OLD.name OR NEW.chain <> OLD.chain OR NEW.sequence < OLD.sequence OR NEW.dropped < OLD.dropped
    OR (NEW.sequence = OLD.sequence AND NEW.hash <> OLD.hash)
    OR (NEW.dropped = OLD.dropped AND (NEW.dropped_hash <> OLD.dropped_hash OR NEW.signature <> OLD.signature))
    OR (NEW.dropped > 0 AND NEW.signature = ''))
EXECUTE FUNCTION audit_is_append_only();

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
