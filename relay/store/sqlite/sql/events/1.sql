-- Schema version 1 of the events file: what ESPs report of messages that the relay knows, and what follows from it.

-- The id is made of the upstream, the event's own key and the recipient, so an event that comes twice is here once.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    message_id TEXT NOT NULL,       -- the relay's id of the message
    position INTEGER NOT NULL,      -- of the recipient in its message
    at REAL NOT NULL,               -- when it happened, as the ESP has it
    recorded_at REAL NOT NULL,
    kind TEXT NOT NULL,
    upstream TEXT NOT NULL,
    lane TEXT NOT NULL,
    provider TEXT NOT NULL,         -- the mailbox provider, or the domain
    permanent INTEGER,
    reason TEXT,                    -- redacted
    accepted_at REAL NOT NULL       -- of the message
);
CREATE INDEX event_message ON event (message_id);
CREATE INDEX event_at ON event (at);

-- How far each message file's own events were read.
CREATE TABLE read_until (
    file TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL
) WITHOUT ROWID;

-- Since when each receiver is configured: what happened before is no news for it.
CREATE TABLE receiver (
    receiver TEXT NOT NULL PRIMARY KEY,     -- a hash of its URL
    since REAL NOT NULL
) WITHOUT ROWID;

-- What listings call a receiver, also after it was removed from the configuration.
CREATE TABLE receiver_host (
    receiver TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL
) WITHOUT ROWID;

-- Events on their way to receivers. A row is deleted once its receiver has answered 2xx. Of the live rows of a message
-- and a receiver, the first has a due time: the others follow it.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,         -- a hash of its URL
    event_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    created_at REAL NOT NULL,
    due_at REAL,                    -- NULL: it stands behind another one, or is given up
    attempts INTEGER NOT NULL DEFAULT 0,
    result TEXT,                    -- of the last attempt
    dead_at REAL,                   -- given up
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX outbox_event ON outbox (receiver, event_id);
CREATE INDEX outbox_due ON outbox (receiver, attempts > 0, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX outbox_message ON outbox (message_id, receiver, seq) WHERE dead_at IS NULL;
CREATE INDEX outbox_age ON outbox (receiver, created_at) WHERE dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL;

-- What the process that owns the message, or the suppressions, has yet to do.
CREATE TABLE effect (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    action TEXT NOT NULL,           -- end: the recipient ends as bounced; suppress, suppress_unnamed: its address isn't mailed again
    message_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    upstream TEXT NOT NULL,
    at REAL NOT NULL,
    cause TEXT,                     -- of suppress: bounce, complaint, unsubscribe
    address TEXT,
    lane TEXT NOT NULL,
    reason TEXT
);

-- Recipients of a lane with an objective, sent by an upstream that reports deliveries: each is counted once.
CREATE TABLE objective (
    message_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    lane TEXT NOT NULL,
    due_at REAL,                    -- without a delivered event the upstream's 250 decides then; NULL: decided
    sent_after_s REAL,
    at REAL NOT NULL,
    PRIMARY KEY (message_id, position)
) WITHOUT ROWID;
CREATE INDEX objective_due ON objective (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX objective_at ON objective (at);

-- The mailbox providers of domains, by their MX records.
CREATE TABLE mx (
    domain TEXT NOT NULL PRIMARY KEY,
    provider TEXT,                  -- NULL: none of the known ones
    until REAL NOT NULL             -- it is looked up again then
) WITHOUT ROWID;
CREATE INDEX mx_until ON mx (until);

-- Mailgun: a token vouches for one body only.
CREATE TABLE token (
    upstream TEXT NOT NULL,
    token TEXT NOT NULL,
    digest BLOB NOT NULL,
    seen_at REAL NOT NULL,
    PRIMARY KEY (upstream, token)
) WITHOUT ROWID;
CREATE INDEX token_seen ON token (seen_at);
