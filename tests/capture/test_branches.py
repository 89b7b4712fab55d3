"""Branches that forward takes on sizes."""

import math

import pytest
import torch
from torch import nn

import octavo
from octavo import CaptureError, DataError
from octavo.capture.branches import holds
from octavo.capture.export import capture


class Branch(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.linear, self.fn = nn.Linear(8, 8), fn

    def forward(self, x):
        return self.fn(self.linear(x))


# what forward does; a condition on its shapes (batch, length, 8)
BRANCHES = [
    (lambda y: y * 2 if y.shape[1] > 50 else y, "input0[1] <= 50", lambda b, n: n <= 50),
    (lambda y: y[:, :50] if y.shape[1] > 50 else y, "input0[1] <= 50", lambda b, n: n <= 50),
    (lambda y: y * 2 if y.shape[1] < 3 else y, "input0[1] >= 3", lambda b, n: n >= 3),
    (lambda y: y * 2 if y.shape[0] > 32 else y, "input0[0] <= 32", lambda b, n: b <= 32),
    (lambda y: y * 2 if y.shape[1] % 5 == 0 else y, "(input0[1] % 5) != 0", lambda b, n: n % 5),
    (lambda y: y + torch.ones(64)[: y.shape[1], None] if y.shape[1] < 65 else y,
     "input0[1] < 65", lambda b, n: n < 65),
    (lambda y: y * 3 if y.shape[0] == y.shape[1] else y, "input0[0] != input0[1]",
     lambda b, n: b != n),
    (lambda y: y.sum(1) if y.numel() < 3200 else y.mean(1), "8*input0[0]*input0[1] < 3200",
     lambda b, n: b * n < 400),
    (lambda y: y * 2 if math.floor(y.shape[1] / 2 - 0.5) > 20 else y,
     "floor((-0.5) + (input0[1] / 2)) <= 20", lambda b, n: n < 43),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "text", "meets"), BRANCHES, ids=[b[1] for b in BRANCHES])
def test_calls_beyond_a_branch_are_refused(fn, text, meets):
    net = Branch(fn).eval()
    data = [torch.randn(4, n, 8) for n in (9, 12, 7)]
    graph, signature = capture(net, (data[0],), None, [((d,), {}) for d in data[1:]])
    assert signature.inputs == (("float32", (None, None, 8)),)
    assert (signature.branches, signature.fixed) == ((text,), ())
    for batch, length in ((2, 60), (3, 2), (40, 9), (2, 10), (11, 11), (1, 1), (2, 64), (4, 120)):
        x = torch.randn(batch, length, 8)
        if meets(batch, length):
            torch.testing.assert_close(graph(*signature.flatten((x,), {}))[0], net(x))
        else:
            with pytest.raises(CaptureError, match="do not meet the condition"):
                signature.flatten((x,), {})


@pytest.mark.parametrize(
    "fn",
    [
        lambda y: y[:, :50],  # tracing fixes a length below 50, but the operator does not need it
        lambda y: y * min(y.shape[1], 40),
        lambda y: y.mean(1) if y.shape[1] > 1 else y[:, 0],
    ],
)
def test_a_branch_without_a_difference_limits_nothing(fn):
    net = Branch(fn).eval()
    graph, signature = capture(net, (torch.randn(4, 9, 8),), None, [((torch.randn(4, 7, 8),), {})])
    assert signature.branches == ()
    for shape in ((2, 60, 8), (3, 1, 8), (1, 100, 8)):
        x = torch.randn(shape)
        torch.testing.assert_close(graph(x)[0], net(x))


def test_a_limit_of_the_model_itself():
    """Beyond a table of positions the model raises; an engine may read what is not there."""

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(16, 8))

        def forward(self, x):
            return x + self.table[: x.shape[1]]

    _, signature = capture(
        Positions(), (torch.randn(2, 5, 8),), None, [((torch.randn(2, 7, 8),), {})]
    )
    with pytest.raises(CaptureError, match=r"input0\[1\] <"):
        signature.flatten((torch.randn(2, 17, 8),), {})


def test_data_on_both_sides_of_a_branch():
    net = Branch(lambda y: y * 2 if y.shape[1] > 8 else y).eval()
    with pytest.raises(DataError, match=r"shapes \(4, 7, 8\) do not meet.*input0\[1\] > 8"):
        octavo.quantize(net, [torch.randn(4, n, 8) for n in (9, 7)], config="fast")


def test_a_condition_is_saved_reported_and_told_of_when_exported(tmp_path):
    net = Branch(lambda y: y * 2 if y.shape[1] > 50 else y).eval()
    q = octavo.quantize(net, [torch.randn(4, n, 8) for n in (9, 7)], config="fast")
    assert "must meet input0[1] <= 50" in str(q.report())
    octavo.save(q, tmp_path / "net.octavo")
    again = octavo.load(tmp_path / "net.octavo")
    for model in (q, again, again.compile(), q.compile("torch_int8")):
        with pytest.raises(CaptureError, match=r"condition input0\[1\] <= 50"):
            model(torch.randn(2, 51, 8))
    with pytest.warns(octavo.SaveWarning, match=r"input0\[1\] <= 50; nothing in the file"):
        octavo.export(q, tmp_path / "net.xml")


def test_conditions():
    shapes = [(4, 60), (3,)]
    assert holds("input0[1] >= 60 and max(input1[0], 2) == 3", shapes)
    assert not holds("input0[1] // input1[0] != 20", shapes)
    assert not holds("input0[1] % (input1[0] - 3) == 0", shapes)  # without a value
    assert holds("trunc(1.5*input1[0]) == 4 and ceil(input1[0] / 2) == round(2.4)", shapes)
    assert not holds("floor(0.5 - input1[0]) > abs(-4)", shapes)


@pytest.mark.parametrize(
    "text",
    [
        *("input7[0] > 1", "input0[9] > 1", "input0 > 1", "__import__('os')", "2 ** 9999 > 1"),
        *("1 << 99 > 1", "input0.count(1)", "[n for n in input0]", "'a' > 'b'", "print(1)", ")"),
        *("round(5, -9) > 1", "trunc(1e999) > 1", "trunc(1e999 - 1e999) > 1", "sin(1) > 0"),
        "2j > 1",
        "(" * 10_000,
    ],
)
def test_what_is_no_condition(text):
    with pytest.raises(ValueError, match="is not a condition on sizes"):
        holds(text, [(4, 60)])


class Pair(nn.Module):
    """Puts two inputs behind each other: their batches are the same, but no operator says so."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, a, b):
        first, second = self.linear(torch.cat([a, b])).chunk(2)
        return first * second + a[:, :4]


def test_batches_of_several_inputs_are_changed_together():
    net = Pair().eval()
    graph, signature = capture(net, (torch.randn(4, 8), torch.randn(4, 8)))
    assert signature.inputs == (("float32", (None, 8)),) * 2
    assert "input1[0] == input0[0]" in signature.branches
    for n in (1, 2, 9):
        call = torch.randn(n, 8), torch.randn(n, 8)
        torch.testing.assert_close(graph(*signature.flatten(call, {}))[0], net(*call))
    with pytest.raises(CaptureError, match="condition input1"):
        signature.flatten((torch.randn(2, 8), torch.randn(4, 8)), {})
