-- Schema version 4: what happened to each message, in the transaction that made it so; addresses not to be mailed.

-- The relay's own events. A row stays in the file where it happened, also where its message moves to another file.
-- The newest row is never deleted, so that no seq is used twice: readers remember the last one that they have seen.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL,
    position INTEGER,               -- of the recipient; NULL: all of them
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    upstream TEXT,
    reason TEXT
);

CREATE INDEX event_message ON event (message_id);

-- What ends or defers a recipient is an event, whichever statement does it. A finished one changes by an ESP's event
-- only, which is an event of its own. relay_now() is the relay's clock.
CREATE TRIGGER recipient_event AFTER UPDATE OF state ON recipient
WHEN old.open = 1 AND new.state <> old.state AND new.state NOT IN ('queued', 'sending')
BEGIN
    INSERT INTO event (message_id, position, at, kind, upstream, reason) VALUES (
        new.message_id, new.position, coalesce(new.sent_at, relay_now()), new.state, new.upstream, new.reply
    );
END;

-- Of use in the main file only. The key stays where the address is erased.
CREATE TABLE suppression (
    key INTEGER PRIMARY KEY,        -- a keyed hash of the address; its last two bits are the cause
    cause TEXT NOT NULL,            -- bounce, complaint, manual, unsubscribe
    address TEXT,                   -- as it was given; NULL: erased, or hashed addresses are asked for
    reason TEXT NOT NULL,
    upstream TEXT,
    at REAL NOT NULL,
    until REAL                      -- NULL: until it is removed
);

CREATE INDEX suppression_at ON suppression (at, key);
CREATE INDEX suppression_until ON suppression (until) WHERE until IS NOT NULL;
