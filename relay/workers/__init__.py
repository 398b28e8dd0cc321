"""Processes for bulk work: each has a store file and the bulk lanes over it, and a link to the main process."""
