-- Schema version 1. A message's id is a ULID, so every table grows at its end.

-- One row a submission: what the log shows, and what a later attempt needs of the envelope.
CREATE TABLE message (
    id TEXT NOT NULL PRIMARY KEY,
    lane TEXT NOT NULL,
    rule TEXT,
    sender TEXT NOT NULL,
    client TEXT NOT NULL,
    message_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    size INTEGER NOT NULL,
    accepted_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    body INTEGER,                   -- its first row in `body`; NULL: nothing more will be sent, the message is finished
    parts INTEGER NOT NULL,
    supersede_key TEXT,             -- NULL once finished, so the index below holds open messages only
    upstreams TEXT,                 -- names, a line each
    signed TEXT,                    -- selectors, a line each
    body_type TEXT,
    smtputf8 INTEGER NOT NULL,
    ret TEXT,
    envid TEXT,
    priority INTEGER,
    deliver_by TEXT,                -- RFC 2852's by-value: 60;R, 60;NT
    timings TEXT NOT NULL           -- JSON: names are added to over time
) WITHOUT ROWID;

CREATE INDEX message_accepted ON message (accepted_at);
CREATE INDEX message_lane ON message (lane, accepted_at);
CREATE INDEX message_supersede ON message (supersede_key, id) WHERE supersede_key IS NOT NULL;

-- One row for each RCPT. lane and accepted_at repeat the message's, for the indexes.
CREATE TABLE recipient (
    message_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    lane TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    address TEXT NOT NULL,
    folded TEXT,                    -- the address case-folded; NULL: the same as address
    provider TEXT NOT NULL,
    notify TEXT,
    orcpt TEXT,
    state TEXT NOT NULL,
    open INTEGER NOT NULL,          -- 1: in one of the open states (base.OPEN_STATES), something may still be sent
    next_at REAL,                   -- due; NULL unless queued or deferred
    step INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    delay_notified INTEGER NOT NULL DEFAULT 0,
    final_dot INTEGER NOT NULL DEFAULT 0,   -- 1: about to leave; with `sending`, a crash leaves it ambiguous
    upstream TEXT,
    reply TEXT,
    sent_at REAL,
    PRIMARY KEY (message_id, position)
) WITHOUT ROWID;

CREATE INDEX recipient_open ON recipient (open, lane, next_at, state, accepted_at) WHERE open = 1;
CREATE INDEX recipient_failed ON recipient (state, accepted_at) WHERE open = 0 AND state <> 'sent';
CREATE INDEX recipient_address ON recipient (coalesce(folded, address), accepted_at);

-- started_at is in the key: hedged attempts of one number are two rows, the same attempt written twice is one.
CREATE TABLE attempt (
    message_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    n INTEGER NOT NULL,
    upstream TEXT NOT NULL,
    started_at REAL NOT NULL,
    session TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reply TEXT NOT NULL,
    timings TEXT NOT NULL,
    PRIMARY KEY (message_id, position, n, started_at)
) WITHOUT ROWID;

CREATE TABLE note (
    message_id TEXT NOT NULL,
    at REAL NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (message_id, at, text)
) WITHOUT ROWID;

-- Contents, apart from the log so that its rows stay small; a large one lies in several rows with consecutive ids.
CREATE TABLE body (
    id INTEGER PRIMARY KEY,
    content BLOB NOT NULL
);

-- Ranges of body that no message owns: one still being written, or one being wiped a part at a time.
CREATE TABLE loose_body (
    first INTEGER PRIMARY KEY,
    parts INTEGER NOT NULL
);
