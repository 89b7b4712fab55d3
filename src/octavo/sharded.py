"""Calibration on several processes or hosts: each observes its share of the data."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from .calibrate.data import batch_size, calls
from .capture.signature import Call
from .config import Config, as_config
from .errors import ConfigError, OctavoError
from .io.file import load, save
from .model import QuantizedModel
from .quantizer import Quantizer
from .search.fallback import Evaluate
from .stages import Calibration

T = TypeVar("T")


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

    Every rank calls it with the same model and settings, and gets the same int8 model. Observers
    of extremes and histograms merge exactly: the result is that of one process bit for bit, if
    rank r of n has its batches r, r + n, r + 2 n and so on. All ranks capture and equalize with
    the first batches of all; rank 0 converts, tunes and evaluates.

        # torchrun --nproc-per-node 4 calibrate.py
        dist.init_process_group("gloo")
        mine = itertools.islice(batches, dist.get_rank(), None, dist.get_world_size())
        q = octavo.quantize_sharded(model, mine)
        if dist.get_rank() == 0:
            octavo.save(q, "model.octavo")

    timeout: in seconds; how long a rank waits for the others at each of the three places where
        they meet. The last is while rank 0 converts and tunes.

    Raises OctavoError on every rank where one of them fails, dies, or has another model.
    """
    ranks = Ranks(timeout)
    config = as_config(config)
    if target_sqnr is not None:
        config = dataclasses.replace(config, target_sqnr=target_sqnr)
    batches = calls(shard, model)
    samples = math.ceil((config.tune_samples + config.measure_samples) / ranks.count)
    leads = ranks.together(lambda: list(_first(batches, samples)))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*leads))
    lead = [call for call in in_turn if call is not None]

    work = _Work(Quantizer(model, config=config))
    own = itertools.chain(leads[ranks.rank], batches)
    shown = ranks.together(lambda: work.observe(lead, own))
    first = ranks.rank == 0
    content = ranks.together(lambda: work.finish(shown, evaluate, max_drop) if first else b"")[0]
    return _from_bytes(content)


class _Observed(NamedTuple):
    """What a rank has seen, and of what model."""

    checksum: int
    graph: str
    values: dict[str, Any]


class _Work:
    """What a rank does between the places where all meet."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.model, self.quantizer = quantizer.model, quantizer
        self.calibration = Calibration(quantizer)

    def observe(self, lead: list[Call], own: Iterable[Call]) -> _Observed:
        """Capture and equalize with what all ranks have, then observe what is this one's."""
        self.quantizer.capture(*lead[:2])
        self.calibration.prepare(lead)
        quantizer = self.calibration.quantizer
        for args, kwargs in own:
            quantizer.observe(*args, **kwargs)
        return _Observed(_checksum(self.model), str(quantizer.graph), quantizer.observed())

    def finish(self, shown: list[_Observed], evaluate: Evaluate | None, max_drop: float) -> bytes:
        """On rank 0: merge what all observed, convert and tune; a file of the model."""
        for rank, other in enumerate(shown):
            if other[:2] != shown[0][:2]:
                raise OctavoError(f"rank {rank} has other weights, or another graph, than rank 0")
        for other in shown[1:]:
            self.calibration.quantizer.take_in(other.values)
        return _as_bytes(self.calibration.finish(evaluate, max_drop))


class Ranks:
    """The processes of torch.distributed's default group; each waits so long for the others."""

    def __init__(self, seconds: float) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ConfigError(
                "no process group: start with torchrun and call "
                'torch.distributed.init_process_group("gloo") first, or use octavo.quantize'
            )
        self.rank, self.count, self.seconds = dist.get_rank(), dist.get_world_size(), seconds
        self.group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))

    def together(self, work: Callable[[], T]) -> list[T]:
        """Do `work` here; what it gave on every rank. An error on one is raised on all."""
        own: Any
        failed: Exception | None = None
        try:
            own = work()
        except Exception as e:
            own, failed = _Failure(f"{type(e).__name__}: {e}"), e
        found: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(found, own, group=self.group)
        except RuntimeError as e:
            raise failed or OctavoError(
                f"rank {self.rank} lost the others: one of {self.count} died, or did not answer "
                f"within timeout={self.seconds:g} s ({e})"
            ) from e
        if failed is not None:
            raise failed
        for rank, item in enumerate(found):
            if isinstance(item, _Failure):
                raise OctavoError(f"rank {rank} failed: {item.reason}")
        return found


class _Failure(NamedTuple):
    """Stands for what a rank would have given."""

    reason: str


def _first(batches: Iterable[Call], samples: int) -> Iterator[Call]:
    """Calls until they hold so many samples."""
    for call in batches:
        yield call
        samples -= batch_size(call)
        if samples <= 0:
            return


def _checksum(model: nn.Module) -> int:
    """Of all weights, bit for bit."""
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
