-- Schema version 8: the trace that an app's message is part of.

ALTER TABLE message ADD COLUMN trace TEXT;   -- the app's traceparent, version 00; NULL: it gave none
