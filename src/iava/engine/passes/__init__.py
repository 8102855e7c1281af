"""How the rows of all branches go through the decoder."""
