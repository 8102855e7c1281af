"""What a contrast branch sees in place of the image."""
