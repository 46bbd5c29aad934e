-- What a group's commit says beside its offset: which records above it are done.
ALTER TABLE committed ADD COLUMN metadata TEXT NOT NULL DEFAULT '';
