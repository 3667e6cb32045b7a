"""What touches the world: the CA's files and its HTTPS server."""
