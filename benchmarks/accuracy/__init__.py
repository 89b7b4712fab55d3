"""Accuracy of quantized trained networks, on data that calibration did not see."""
