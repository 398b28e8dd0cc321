-- Schema version 7: an upstream that may have the mail, and knows the request if it comes again.

ALTER TABLE recipient ADD COLUMN repeat_at TEXT;      -- the upstream's name; NULL: there is none
ALTER TABLE recipient ADD COLUMN repeat_until REAL;   -- seconds since the epoch
