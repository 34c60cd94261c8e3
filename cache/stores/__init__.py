"""Object stores and web servers: where a file is, what the store knows of it, and its bytes."""
