"""The wallets of a NosanaMarket: read from Secrets, polled on chain, watched for use elsewhere."""
