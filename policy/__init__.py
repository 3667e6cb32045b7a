"""Who is who in a project, and who may talk to whom."""
