"""Calibration on several processes or hosts: each observes its share of the data."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from .calibrate.data import calls
from .calibrate.observers import Observer
from .calibrate.processes import Ranks
from .calibrate.ranges import Ranges
from .calibrate.samples import calls_with
from .capture.signature import Call
from .config import Config, as_config
from .errors import OctavoError
from .io.file import load, save
from .model import QuantizedModel
from .quantize import Prepared, finish, prepare
from .search.fallback import Evaluate


@torch.no_grad()
def quantize_sharded(
    model: nn.Module,
    shard: Any,
    *,
    config: Config | str | None = None,
    target_sqnr: float | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float = 0.005,
    timeout: float = 1800.0,
) -> QuantizedModel:
    """`octavo.quantize` by all processes of a torch.distributed job, each with a share of the data.

    Every rank calls it with the same model and settings, and gets the same int8 model. Observers of
    extremes and histograms merge exactly: the result is bit-identical to that of one process if
    rank r of n has its batches r, r + n, r + 2 n and so on, and they are few: of many, one process
    observes most in OpenVINO, the ranks all in PyTorch. All ranks capture and equalize with the
    first batches of every rank; rank 0 converts, tunes and evaluates.

        # torchrun --nproc-per-node 4 calibrate.py
        dist.init_process_group("gloo")
        mine = itertools.islice(batches, dist.get_rank(), None, dist.get_world_size())
        q = octavo.quantize_sharded(model, mine)
        if dist.get_rank() == 0:
            octavo.save(q, "model.octavo")

    shard: this rank's batches, in any form that `octavo.quantize` takes.
    config: as `octavo.quantize` takes it; activations="auto" counts as "static", since ranks that
        measure their machines' speed would choose differently.
    timeout: in seconds; how long a rank waits for the others at each of three synchronizations. The
        last wait is while rank 0 converts and tunes.

    Raises OctavoError on every rank if one of them fails, dies, or has a different model.
    """
    ranks = Ranks(timeout)
    config = as_config(config)
    if config.activations == "auto":
        config = dataclasses.replace(config, activations="static")
    if target_sqnr is not None:
        config = dataclasses.replace(config, target_sqnr=target_sqnr)
    batches = calls(shard, model)
    samples = math.ceil((config.tune_samples + config.measure_samples) / ranks.count)
    leads = ranks.together(lambda: list(calls_with(batches, samples)))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*leads))
    lead = [call for call in in_turn if call is not None]

    share = _Share(model, config)
    own = itertools.chain(leads[ranks.rank], batches)
    shown = ranks.together(lambda: share.observe(lead, own))
    first = ranks.rank == 0
    content = ranks.together(lambda: share.finish(shown, evaluate, max_drop) if first else b"")[0]
    return _from_bytes(content)


class _Observed(NamedTuple):
    """The observations of a rank, and what identifies its model."""

    checksum: int
    graph: str
    state: Mapping[str, Observer]


class _Share:
    """The work of a rank between synchronizations."""

    prepared: Prepared
    ranges: Ranges

    def __init__(self, model: nn.Module, config: Config) -> None:
        self.model, self.config = model, config

    def observe(self, lead: list[Call], own: Iterable[Call]) -> _Observed:
        """Capture and equalize with the first batches of all ranks, then observe the own share."""
        self.prepared = prepare(self.model, iter(lead), self.config)
        self.ranges = Ranges(self.prepared.sites)
        graph = self.prepared.graph
        for call in own:
            self.ranges.observe(graph.flatten(*call))
        return _Observed(_checksum(self.model), str(graph.graph), self.ranges.state())

    def finish(self, shown: list[_Observed], evaluate: Evaluate | None, max_drop: float) -> bytes:
        """On rank 0: merge all observations, convert and tune; returns the saved model's bytes."""
        for rank, other in enumerate(shown):
            if other[:2] != shown[0][:2]:
                raise OctavoError(f"rank {rank} has other weights, or another graph, than rank 0")
        for other in shown[1:]:
            self.ranges.merge(other.state)
        return _as_bytes(finish(self.prepared, self.ranges, evaluate, max_drop))


def _checksum(model: nn.Module) -> int:
    """CRC-32 of all weights."""
    found = 0
    for name, t in model.state_dict().items():
        raw = t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found = zlib.crc32(raw, zlib.crc32(name.encode(), found))
    return found


def _as_bytes(model: QuantizedModel) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(model, path := Path(folder, "model.octavo"))
        return path.read_bytes()


def _from_bytes(content: bytes) -> QuantizedModel:
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder, "model.octavo")).write_bytes(content)
        return load(path)
