"""iava: instruction-aligned visual attention for vision-language models."""
