"""The operator's outside world in one process: an initialized chain, IPFS and a gateway."""
