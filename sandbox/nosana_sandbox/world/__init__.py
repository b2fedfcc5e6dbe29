"""What the operator meets in the world: a chain that has begun, IPFS and a gateway, in one process."""
