"""What a run leaves behind, and what the terminal shows."""
