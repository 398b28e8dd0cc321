-- Schema version 6: what the content detector saw.

ALTER TABLE message ADD COLUMN detected TEXT;   -- `otp` or `other`; NULL: no rule asked
