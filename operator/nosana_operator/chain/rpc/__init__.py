"""JSON-RPC to Solana nodes: several endpoints with failover, the methods we call, the replies as values."""
