"""Which traffic is the project's own: membership and the packets that wait for a session."""
