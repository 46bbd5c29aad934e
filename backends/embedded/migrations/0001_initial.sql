-- Times are Unix seconds (REAL) unless a name ends in _ms.

-- Entities -----------------------------------------------------------------------------------------
-- A body of NULL is a tombstone: it keeps the version that the removal took, so versions never go back.
CREATE TABLE entity (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    expires_at REAL NOT NULL DEFAULT 0,  -- 0: never
    body BLOB,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX entity_expiry ON entity (expires_at) WHERE expires_at > 0;

-- Event log ----------------------------------------------------------------------------------------
CREATE TABLE topic (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    partitions INTEGER NOT NULL CHECK (partitions > 0),
    retention_s REAL  -- NULL: for ever
);
CREATE TABLE part (
    topic_id INTEGER NOT NULL REFERENCES topic (id),
    p INTEGER NOT NULL,
    log_start INTEGER NOT NULL DEFAULT 0,
    next_offset INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic_id, p)
) WITHOUT ROWID;
-- No foreign key: part rows are never deleted, and a check a record is not free.
CREATE TABLE record (
    topic_id INTEGER NOT NULL,
    p INTEGER NOT NULL,
    off INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    key BLOB,
    value BLOB,
    headers BLOB,  -- MessagePack array of [name, value]; NULL: none
    PRIMARY KEY (topic_id, p, off)
) WITHOUT ROWID;
CREATE TABLE committed (
    grp TEXT NOT NULL,
    topic_id INTEGER NOT NULL,
    p INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (grp, topic_id, p),
    FOREIGN KEY (topic_id, p) REFERENCES part (topic_id, p)
) WITHOUT ROWID;
CREATE TABLE attempt (
    grp TEXT NOT NULL,
    topic_id INTEGER NOT NULL,
    p INTEGER NOT NULL,
    off INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due_at REAL NOT NULL,
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (grp, topic_id, p, off),
    FOREIGN KEY (topic_id, p) REFERENCES part (topic_id, p)
) WITHOUT ROWID;

-- Audit trail --------------------------------------------------------------------------------------
-- seq has no gaps and hash chains the rows, so a row changed, added or taken away behind our back shows.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    subject TEXT NOT NULL,
    action TEXT NOT NULL,
    entity TEXT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status INTEGER NOT NULL,
    client TEXT NOT NULL,
    hash BLOB NOT NULL
);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_subject ON audit (subject, at);
CREATE INDEX audit_action ON audit (action, at);
CREATE INDEX audit_entity ON audit (entity, at);
CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_keeps_its_values BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
-- The last row's number and hash: without them a cut-off tail would not show.
CREATE TABLE audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL
);
INSERT INTO audit_head VALUES (1, 0, zeroblob(32));

-- Search index -------------------------------------------------------------------------------------
CREATE TABLE document (
    doc INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    UNIQUE (type, id)
);
-- Its rowid is document.doc. It keeps the texts itself: an external-content index is silently damaged by
-- a delete that does not repeat the old values exactly.
CREATE VIRTUAL TABLE document_text USING fts5 (
    name, email, bio,
    tokenize = 'unicode61 remove_diacritics 2',
    prefix = '2 3'
);

-- Deliveries ---------------------------------------------------------------------------------------
CREATE TABLE delivery (
    id TEXT PRIMARY KEY,
    channel TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    source TEXT NOT NULL,
    payload BLOB NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due_at REAL NOT NULL,
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    error TEXT NOT NULL
);
CREATE INDEX delivery_pending ON delivery (endpoint, due_at, id) WHERE state = 'pending';
CREATE INDEX delivery_state ON delivery (state, last_at);
