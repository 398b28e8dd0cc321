-- Schema version 7: an upstream that may have the mail, and knows the request if it comes again; messages whose
-- recipients take different routes.

ALTER TABLE recipient ADD COLUMN repeat_at TEXT;      -- the upstream's name; NULL: there is none
ALTER TABLE recipient ADD COLUMN repeat_until REAL;   -- seconds since the epoch
ALTER TABLE recipient ADD COLUMN repeat_key TEXT;     -- the request's idempotency key

ALTER TABLE attempt ADD COLUMN via TEXT;   -- api: by the upstream's HTTP API; NULL: by SMTP

-- A message whose recipients take different routes is stored as several, its parts: each has a lane and some of the
-- recipients. The first is its entry.
ALTER TABLE message ADD COLUMN part_of TEXT;   -- the entry's id; NULL: the entry itself, or a message that isn't split
ALTER TABLE message ADD COLUMN places TEXT;    -- of the part's recipients in the envelope: 0,2; NULL: it isn't split

CREATE INDEX message_parts ON message (part_of) WHERE part_of IS NOT NULL;
