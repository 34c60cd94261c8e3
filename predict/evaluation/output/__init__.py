"""What an evaluation leaves behind, and what the terminal shows."""
