"""What becomes of many architectures."""
