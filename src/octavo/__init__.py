"""Octavo: a trained PyTorch model in, a fast and accurate int8 model out, in one call."""
from .quantizer import Quantizer
