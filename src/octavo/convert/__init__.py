"""Convert: scale and zero_point from ranges, and the quantized graph from both."""
