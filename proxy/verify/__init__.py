"""Proof of encryption on demand (docs/decisions/0007): what is said, what is seen, and what follows."""
