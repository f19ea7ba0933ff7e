"""convsdk: every conversation, from any channel, on the right contact."""
