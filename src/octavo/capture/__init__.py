"""Capture: an nn.Module and calls of it become a flat graph of ATen operators."""
