"""Engines run a quantized graph; `register_engine` adds one. See `octavo.engines.base`."""

from .base import ENGINES, EngineModel, register_engine

__all__ = ["ENGINES", "EngineModel", "register_engine"]
