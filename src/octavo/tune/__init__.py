"""Tune: methods that make the int8 model more accurate and leave its function as it is."""
