"""The proxy of one pod: a packet's way out and back."""
