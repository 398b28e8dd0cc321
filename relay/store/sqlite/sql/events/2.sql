-- Schema version 2 of the events file: where a receiver stands in the configuration, for listings. NULL: it was removed.
ALTER TABLE receiver_host ADD COLUMN position INTEGER;
