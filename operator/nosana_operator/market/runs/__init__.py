"""One run of a market: verified against the chain, followed, settled and paid."""
