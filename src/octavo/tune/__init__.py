"""Tune: methods that bring the int8 model closer to the float model."""
