-- Schema version 2: contents may be encrypted, addresses of finished messages hashed.

ALTER TABLE message ADD COLUMN body_key TEXT;   -- id of the key its content is encrypted with; NULL: it is in clear

-- What the store knows of itself: `salt`, which addresses are hashed with; `hidden`, that no finished message has one.
CREATE TABLE setting (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
