"""otp-relay: a local SMTP relay that lets one-time codes out first."""

__version__ = "0.1.0"
