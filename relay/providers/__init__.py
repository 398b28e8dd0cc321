"""E-mail service providers, one file each: presets, reply patterns, correlation header. Pure."""
