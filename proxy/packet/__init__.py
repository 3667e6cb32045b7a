"""Inner IP packets: what the proxy must know of one, and nothing more."""
