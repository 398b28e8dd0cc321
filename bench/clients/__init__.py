"""Mail libraries and programs as apps submit with them, unchanged, and what they cost on the wire.

Each program of this folder takes `HOST PORT TEMPLATE`. For each line of its standard input, a bench id, it submits one
message over a connection of its own and prints `sent`, or what went wrong. The message is the template with that id as
X-Bench-ID. With `--check` it only says by its exit code whether it can run here: 0 if it can.
"""
