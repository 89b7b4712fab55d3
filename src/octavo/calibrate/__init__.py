"""Calibrate: real inputs run through the float graph, and observers record ranges."""
