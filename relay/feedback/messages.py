"""Messages between the main process and the feedback process, as JSON. Neither believes the other's to be well formed:
what the public reaches may have taken over the feedback process."""

from __future__ import annotations

# Requests of the main process.
START, RELOAD, PING, WEBHOOK, STOP = "start", "reload", "ping", "webhook", "stop"
"""`start`, `reload`: `Settings`. `webhook`: [upstream, headers] with the body attached; the reply is [status, text]"""
TAKE_COUNTS = "take_counts"
"""the reply is what `counts` would say now"""
ERASE = "erase"
"""an address to forget; the reply is how many rows had it"""
NUDGE = "nudge"
"""a notification of the main process: there are new events in a message file"""
# Requests of the feedback process.
EFFECTS = "effects"
"""a list of `store.events.Effect`; the reply is null once all are applied"""
# Notifications of the feedback process.
COUNTS, RECORDED = "counts", "recorded"
"""`counts`: what the metrics have gained; `recorded`: there are new events in the events file"""
