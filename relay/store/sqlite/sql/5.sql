-- Schema version 5: what limits count, and which requests are known. Both stand in the file of their message, and are
-- written with it.

-- One row for each accepted message that a limit counts.
CREATE TABLE admission (
    seq INTEGER PRIMARY KEY,        -- the main process numbers the rows of all files; a row takes one for each key
    at REAL NOT NULL,               -- when it counts
    keys BLOB NOT NULL              -- keyed hashes, 8 bytes each in the machine's order
);

-- Messages whose app gave an idempotency key.
CREATE TABLE idempotency (
    key BLOB NOT NULL PRIMARY KEY,  -- a keyed hash of it
    request BLOB NOT NULL,          -- a keyed hash of envelope and content
    message_id TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;

CREATE INDEX idempotency_at ON idempotency (at);
