"""Sessions: TLS 1.3 over datagrams, and sealed records. ``docs/decisions/0003`` has the wire."""
