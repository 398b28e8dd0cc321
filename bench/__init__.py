"""Measurements of the relay beside Debian's Postfix with OpenDKIM, on one machine, in one run. See README.md."""
