"""The host side of a market: which slots it offers, which runs it serves, what its status says."""
