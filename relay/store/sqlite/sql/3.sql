-- Schema version 3: a claim books the next attempt before this one is made, so that a crash is a late, counted retry.

ALTER TABLE recipient ADD COLUMN booked_at REAL;        -- with `sending`: due again then, should its holder die
ALTER TABLE recipient ADD COLUMN holder TEXT;           -- with `sending`: which relay has it in hand,
ALTER TABLE recipient ADD COLUMN lease_until REAL;      -- and until when it may
-- How often a holder died with it in hand, since it was last settled. From 2 on it is a suspect: `queued`, due at
-- booked_at, with no next_at, so that it stands in none of its neighbours' way.
ALTER TABLE recipient ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN urged INTEGER NOT NULL DEFAULT 0;      -- 1: an operator asked for a try

CREATE INDEX recipient_suspect ON recipient (lane, state, booked_at) WHERE open = 1 AND deaths >= 2;
CREATE INDEX recipient_urged ON recipient (lane, next_at) WHERE open = 1 AND urged = 1;
