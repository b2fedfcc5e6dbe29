"""What the chain shows, kept current: polls and subscriptions into one snapshot."""
