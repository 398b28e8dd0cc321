"""Upstreams that speak HTTP: the client, connections, what an API makes of a message."""
