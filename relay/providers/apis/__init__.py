"""The HTTP API of each ESP: a request from a mail, a verdict from a response."""
