"""The former name of `random_models.py`, which `equivalence_nets.py` still imports."""

from .random_models import BertEncoder, images, settle_batch_norms, torchvision

__all__ = ["BertEncoder", "images", "settle_batch_norms", "torchvision"]
