"""What `otp-relay init` writes: a configuration, DKIM keys, DNS records, and what starts the relay."""
