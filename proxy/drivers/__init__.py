"""Everything of the proxy that touches the world."""
