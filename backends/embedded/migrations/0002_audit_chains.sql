-- A chain of hashes for each partition of the audit topic, in place of one for the whole trail. The rows there
-- are stay as they were written, hashes and all, as the chain `audit`, which is not continued.

-- `sequence` and `hash` are the head: without them a cut-off tail would not show. Rows up to `dropped` are gone:
-- `dropped_hash` is the hash of the last of them, `signature` signs the two (the checkpoint).
CREATE TABLE audit_chain (
    chain INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0,
    dropped_hash BLOB NOT NULL DEFAULT (zeroblob(32)),
    signature TEXT NOT NULL DEFAULT '',
    CHECK (0 <= dropped AND dropped <= sequence)
);
INSERT INTO audit_chain (name, sequence, hash) SELECT 'audit', seq, hash FROM audit_head WHERE seq > 0;
DROP TABLE audit_head;

-- No foreign key: chains are never deleted, and a check a row is not free.
-- The primary key is what no second writer of a chain can get around: it would have to take a sequence twice.
CREATE TABLE audit_row (
    chain INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    id TEXT NOT NULL,
    at REAL NOT NULL,
    subject TEXT NOT NULL,
    action TEXT NOT NULL,
    entity TEXT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status INTEGER NOT NULL,
    client TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (chain, sequence)
) WITHOUT ROWID;
INSERT INTO audit_row SELECT
    (SELECT chain FROM audit_chain WHERE name = 'audit'),
    seq, id, at, subject, action, entity, outcome, request_id, status, client, hash
FROM audit ORDER BY seq;
DROP TABLE audit;
ALTER TABLE audit_row RENAME TO audit;
CREATE UNIQUE INDEX audit_id ON audit (id);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_subject ON audit (subject, at);
CREATE INDEX audit_action ON audit (action, at);
CREATE INDEX audit_entity ON audit (entity, at);

-- Retention's way is the only one: first the checkpoint moves, then the rows up to it may go.
CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE ON audit
WHEN OLD.sequence > (SELECT dropped FROM audit_chain WHERE chain = OLD.chain)
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_keeps_its_values BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_keeps_its_chains BEFORE DELETE ON audit_chain
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_goes_forward BEFORE UPDATE ON audit_chain
WHEN NEW.name IS NOT OLD.name OR NEW.sequence < OLD.sequence OR NEW.dropped < OLD.dropped
    OR (NEW.sequence = OLD.sequence AND NEW.hash IS NOT OLD.hash)
    OR (NEW.dropped = OLD.dropped AND (NEW.dropped_hash IS NOT OLD.dropped_hash OR NEW.signature IS NOT OLD.signature))
    OR (NEW.dropped > 0 AND NEW.signature = '')
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
