"""Finding and replacing the question in a prompt."""
