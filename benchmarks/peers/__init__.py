"""Octavo beside other quantizers, on models with random weights."""
