"""Ranks are processes of this machine, joined by gloo; the same code runs on several hosts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.elastic.utils.distributed import get_free_port

import octavo
from networks import calls, make
from octavo import Config, ConfigError, OctavoError
from octavo.config import PRESETS
from octavo.search import latency

CONFIGS = {
    **PRESETS,
    **{
        o: Config(observer=o, equalize=False, correct_biases=False)
        for o in ("percentile", "entropy")
    },
}
BATCHES = 7  # shares of different sizes


def data():
    _, inputs = make("residual")
    return calls(inputs, batches=BATCHES, size=5)


def tensors(model):
    return dict(model.named_buffers())


def join(rank, ranks, folder):
    """In a new process: become one rank of several."""
    torch.set_num_threads(1)
    where = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=ranks)


def time_as_always(a, b):
    """The settings "best" keep in float what takes no time: here all does, on any machine."""
    return 1.5


def quantize_share(rank, ranks, folder):
    join(rank, ranks, folder)
    latency.time_ratio = time_as_always  # in a process of its own
    net, _ = make("residual")
    for name in CONFIGS if ranks < 4 else ("fast", "balanced"):
        q = octavo.quantize_sharded(net, data()[rank::ranks], config=CONFIGS[name])
        octavo.save(q, f"{folder}/{name}.{rank}.octavo")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    """name of settings -> the model that one process makes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the ranks: sums in another order are other sums
    try:
        net, _ = make("residual")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(latency, "time_ratio", time_as_always)
            patch.setattr(latency, "_RATIOS", {})
            return {n: octavo.quantize(net, data(), config=c) for n, c in CONFIGS.items()}
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_gives_what_one_process_gives_bit_for_bit(ranks, alone, tmp_path):
    mp.spawn(quantize_share, (ranks, str(tmp_path)), nprocs=ranks)
    for name in CONFIGS if ranks < 4 else ("fast", "balanced"):
        expected = tensors(alone[name])
        for rank in range(ranks):
            q = octavo.load(tmp_path / f"{name}.{rank}.octavo")
            found = tensors(q)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[n], expected[n]) for n in expected), name
            assert q.report().output_sqnr == alone[name].report().output_sqnr


def misbehave(rank, ranks, folder, how):
    join(rank, ranks, folder)
    net, share = nn.Linear(4, 2), [torch.rand(8, 4) for _ in range(4)]
    if rank == 1 and how == "nan":
        share[2][0, 0] = float("nan")
    elif rank == 1 and how == "nothing":
        share = []
    elif rank != 1 or how != "weights":
        nn.init.ones_(net.weight), nn.init.ones_(net.bias)

    def then(batches, act):
        yield from batches
        act()

    if rank == 1 and how == "dies":
        share = then(share, lambda: os._exit(1))
    elif rank == 1 and how == "sleeps":
        share = then(share, lambda: time.sleep(30))
    timeout = 3.0 if how == "sleeps" else 60.0
    start = time.monotonic()
    try:
        octavo.quantize_sharded(net, share, timeout=timeout)
    except OctavoError as e:
        Path(folder, str(rank)).write_text(f"{time.monotonic() - start} {e}")
    os._exit(0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "rank 1 failed: DataError: batch 2 of the calibration data holds NaN"),
        ("nothing", "rank 1 failed: DataError: calibration data is empty"),
        ("weights", "rank 1 has other weights, or another graph, than rank 0"),
        ("dies", "rank 0 lost the others: one of 2 died, or did not answer within timeout=60"),
        ("sleeps", "rank 0 lost the others: one of 2 died, or did not answer within timeout=3"),
    ],
)
def test_what_goes_wrong_on_one_rank_is_an_error_on_the_other_not_a_hang(how, message, tmp_path):
    context = mp.spawn(misbehave, (2, str(tmp_path), how), nprocs=2, join=False)
    context.processes[0].join()
    context.processes[1].kill()
    seconds, _, text = (tmp_path / "0").read_text().partition(" ")
    assert message in text
    assert float(seconds) < 30


def test_without_a_process_group_it_says_how_to_make_one():
    with pytest.raises(ConfigError, match="torchrun"):
        octavo.quantize_sharded(nn.Linear(4, 2), torch.rand(8, 4))


def test_the_command_line_under_torchrun_on_one_host_and_on_two(tmp_path):
    model = tmp_path / "model.py"
    model.write_text(
        "import torch\nfrom torch import nn\n\n"
        "def net():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))\n"
    )
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(90, 6)).astype("f4"))
    arguments = ["-m", "octavo", "quantize", f"{model}:net", "--data", tmp_path / "data.npy"]
    arguments += ["--preset", "fast", "--batch-size", "8", "--samples", "80", "--out"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    hosts = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(get_free_port())]
    starts = {
        "one": [[]],
        "two": [torchrun],
        "hosts": [[*torchrun, *hosts, "--node-rank", str(i)] for i in range(2)],
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, agents in starts.items():
        commands = [
            [sys.executable, *start, *arguments, tmp_path / f"{name}.octavo"] for start in agents
        ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running = [subprocess.Popen(c, env=environment, **pipes) for c in commands]
        told = [p.communicate() for p in running]
        assert [p.returncode for p in running] == [0] * len(running), told
        reports = "".join(out for out, _ in told).count("multiply-adds in int8")
        assert reports == 1  # one rank tells
    one, *others = (tensors(octavo.load(tmp_path / f"{name}.octavo")) for name in starts)
    assert all(torch.equal(one[n], other[n]) for n in one for other in others)
