"""Sixty random networks, each on every engine; and the fuzzer itself: `fuzz/fuzz_networks.py`."""

import dataclasses
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from drawn.check import PARTS, check
from drawn.compare import changed, difference, noise, state, unequal
from drawn.draw import draw
from drawn.pool import results
from drawn.program import Input, Program, Sizes, Step
from drawn.shrink import kind, shrunk
from drawn.templates import ROWS
from torch import nn
from torch.utils._pytree import tree_map

import octavo
from octavo.engines.base import ENGINES as REGISTERED
from octavo.graph.operators import OPERATORS

SCRIPT = Path(__file__).parents[2] / "fuzz" / "fuzz_networks.py"
SEEDS = [seed for seed in range(61) if seed != 33]  # an LSTM that takes OpenVINO ten seconds
EVERY = {"onnxruntime": 5, ".onnx": 15, ".xml": 5}  # of so many networks, one: torch.onnx is slow
SIZES = (Sizes(4, 6, 8, 6), Sizes(3, 9, 12, 10), Sizes(1, 5, 10, 8))


def program(*codes, output, x="torch.randn(B, L, 8)"):
    """A network of these lines, each of which makes the next value."""
    steps = tuple(Step(f"v{i} = {code}", (f"v{i}",)) for i, code in enumerate(codes))
    return Program((Input("x0", x),), steps, output, SIZES)


# ---- networks


@pytest.mark.parametrize("seed", SEEDS)
def test_every_engine_and_file_agrees_with_pytorch(seed):
    drawn = draw(seed)
    parts = [part for part in PARTS if seed % EVERY.get(part, 1) == 0]
    assert check(drawn, parts).findings == {}, drawn.source()


def test_a_seed_is_a_network():
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    one, other = draw(7).network(), draw(7).network()
    assert state(one).keys() == state(other).keys()
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_every_operator_of_the_table_is_drawn():
    assert set(OPERATORS) <= {row.operator for row in ROWS}
    count = len(OPERATORS)
    drawn = Counter(step.operator for seed in range(count) for step in draw(seed).steps)
    assert set(OPERATORS) <= set(drawn)


# ---- what is found


@pytest.fixture
def broken():
    """Puts an engine in place of torch_int8, which is given the program and a call."""
    known = dict(REGISTERED)

    def put(run):
        REGISTERED["torch_int8"] = lambda q: lambda *args: run(q, *args)

    yield put
    REGISTERED.clear()
    REGISTERED.update(known)


def fails(q, x):
    raise KeyError("x")


def refuses(q, x):
    raise octavo.EngineError("only squares")


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (lambda q, x: q(x) * 1.1, r"other numbers: 20.0 dB, at least 25.0 expected"),
        (lambda q, x: q(x)[:, 1:], r"output 0 has shape \(4, 5, 3\) instead of \(4, 6, 3\)"),
        (lambda q, x: q(x).double(), "output 0 has dtype torch.float64 instead of torch.float32"),
        (lambda q, x: (q(x),), r"structure \(\*,\) instead of \*"),
        (lambda q, x: q(x.zero_()), "other numbers"),
        (lambda q, x: (q(x), x.zero_())[0], "the call's inputs are changed"),
        (lambda q, x: q(x) if len(x) > 1 else q(x) * torch.nan, "other numbers: -inf dB"),
        (fails, "raises KeyError: 'x'"),
    ],
)
def test_a_broken_engine_is_found(broken, run, what):
    broken(run)
    linear = Step("v0 = self.m0(x0)", ("v0",), ("self.m0 = nn.Linear(8, 3)",))
    net = dataclasses.replace(program(output="v0"), steps=(linear,))
    findings = check(net, ["torch_int8"]).findings
    assert list(findings) == ["torch_int8"]
    assert re.match(what, findings["torch_int8"])


def test_an_error_of_octavo_is_a_refusal(broken):
    broken(refuses)
    outcome = check(program("x0 * 2", output="v0"), ["torch_int8"])
    assert (outcome.findings, outcome.refusals) == ({}, {"torch_int8": "EngineError: only squares"})


def test_an_engine_may_round_values_the_other_way(broken):
    broken(lambda q, x: q(x) + q(x).amax() / 255 * (torch.rand_like(q(x)) > 0.9))
    assert check(program("x0 * 2", output="v0"), ["torch_int8"]).findings == {}


def test_what_rounding_left_of_a_difference_is_not_compared(broken):
    broken(lambda q, x: q(x) + 1e-6 * torch.rand_like(x))
    lost, kept = "(x0 * 1e-8 + 1) - 1", "(x0 * 1e-5 + 0) - 0"
    assert check(program(lost, output="v0"), ["torch_int8"]).findings == {}
    assert check(program(kept, output="v0"), ["torch_int8"]).findings != {}


def test_the_fewest_lines_that_show_it(broken):
    def wrong(q, x):
        keep = None if "tanh" not in str(q.graph) else 0
        return tree_map(lambda t: t[:keep], q(x))

    broken(wrong)
    net = program("x0 * 2", "v0.sigmoid()", "v0.tanh()", "v2 + v1", output="(v3, v1)")
    what = check(net, ["torch_int8"]).findings["torch_int8"]
    small, found = shrunk(net, "torch_int8", what)
    assert [step.code for step in small.live()] == ["v2 = x0.tanh()"]
    assert small.output == "v2"
    assert kind(found) == kind(what)


# ---- comparisons, against values by hand


def test_noise_is_that_of_the_worst_output():
    one, ten = torch.ones(4), torch.full((4,), 10.0)
    assert noise((one, ten), (one, ten + 1)) == pytest.approx(20)
    assert noise((one, ten), (one + 0.1, ten + 0.1)) == pytest.approx(20, abs=1e-4)
    assert noise((one, None, 3), (one, None, 3)) == float("inf")
    assert noise(one, one + torch.nan) == -float("inf")
    assert noise(torch.arange(4), torch.arange(4) + 1) == 0
    assert unequal(one, one + 1e-7) and not unequal([one], [one.clone()])


def test_structures_and_what_is_no_tensor_must_agree():
    x = torch.zeros(2)
    assert difference({"a": x, "b": (3, None)}, {"a": x, "b": (3, None)}) is None
    assert difference({"a": x}, {"b": x}) == "structure {'b': *} instead of {'a': *}"
    assert difference((x, 3), (x, torch.tensor(3))) == "output 1 is tensor(3) instead of 3"
    assert difference((x, True), (x, 1)) == "output 1 is 1 instead of True"


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.seen, self.norm = None, [], nn.BatchNorm1d(3)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: setattr(m, "table", torch.zeros(1)), "model.table was NoneType"),
        (lambda m: m.seen.append(1), "attributes came or went"),
        (lambda m: m.norm.running_mean.add_(1), "norm._buffers.running_mean was"),
        (lambda m: m.train(), "model.training was bool, False and is bool, True"),
        (lambda m: setattr(m.norm, "weight", nn.Parameter(torch.ones(3))), "_parameters.weight"),
        (lambda m: m.norm.weight.requires_grad_(False), "_parameters.weight was"),
        (lambda m: None, None),
    ],
)
def test_a_changed_model_is_found(change, what):
    model = Cached().eval()
    before = state(model)
    change(model)
    found = changed(before, model)
    assert found is None if what is None else what in found


# ---- processes


def test_a_process_that_crashes_is_a_finding_and_the_next_one_works_on(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    seed = json.loads(line)['seed']\n"
        "    os._exit(3) if seed == 1 else print(json.dumps({'seed': seed}), flush=True)\n"
    )
    requests = ({"seed": seed} for seed in range(4))
    answers = {request["seed"]: answer for request, answer in results(str(script), requests, 1)}
    assert answers.pop(1) == {"findings": {"process": "crashed with exit code 3"}}
    assert answers == {i: {"seed": i} for i in (0, 2, 3)}


def test_the_command_says_what_came_of_the_networks(tmp_path):
    out = tmp_path / "findings.jsonl"
    command = [sys.executable, SCRIPT, "--count", "2", "--seed", "0", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("\n2 networks in"), done.stderr
    assert "operators of the table in graphs" in done.stdout
    assert done.returncode == bool(out.read_text())
