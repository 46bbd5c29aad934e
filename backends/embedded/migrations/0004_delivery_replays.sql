-- How often a delivery was replayed, so that what keeps failing can be told from what failed once; and since when it
-- is pending, which its due time does not say: each attempt moves that.
ALTER TABLE delivery ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN pending_since REAL NOT NULL DEFAULT 0;
UPDATE delivery SET pending_since = CASE WHEN first_at > 0 THEN first_at ELSE due_at END;
CREATE INDEX delivery_age ON delivery (pending_since) WHERE state = 'pending';
