"""What DNS says: queries and answers as bytes, the project's zone, resolv.conf. Nothing here asks anybody."""
