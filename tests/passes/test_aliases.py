import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octavo.graph.names import operator_name
from octavo.passes.aliases import REWRITES, SAME
from stages import passed, quantize, rows

X = torch.randn(4, 6, 8, 8)
INDEX = torch.randint(0, 6, (1, 2, 8, 8))


class Of(nn.Module):
    """A function of what an operator has computed."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x * 1.5)


# what is written -> the operators that it becomes
WRITTEN = {
    "concat": (lambda x: torch.concat([x, x], 1), "cat"),
    "concatenate": (lambda x: torch.concatenate([x, x], dim=-1), "cat"),
    "hstack": (lambda x: torch.hstack([x, x]), "cat"),
    "hstack of vectors": (lambda x: torch.hstack([x[0, 0, 0], x[1, 0, 0]]), "cat"),
    "vstack": (lambda x: torch.vstack([x, x]), "cat"),
    "vstack of vectors": (lambda x: torch.vstack([x[0, 0, 0], x[1, 0, 0]]), "unsqueeze cat"),
    "row_stack": (lambda x: torch.row_stack([x, x]), "cat"),
    "dstack": (lambda x: torch.dstack([x, x]), "cat"),
    "dstack of matrices": (lambda x: torch.dstack([x[0, 0], x[0, 1]]), "unsqueeze cat"),
    "dstack of vectors": (lambda x: torch.dstack([x[0, 0, 0], x[1, 0, 0]]), "dstack"),
    "column_stack": (lambda x: torch.column_stack([x, x]), "cat"),
    "column_stack of vectors": (lambda x: torch.column_stack([x[0, 0, 0]] * 2), "unsqueeze cat"),
    "column_stack of both": (lambda x: torch.column_stack([x[0, 0, 0], x[0, 0]]), "column_stack"),
    "stack": (lambda x: torch.stack([x, x + 1]), "unsqueeze cat"),
    "stack last": (lambda x: torch.stack([x, x + 1], -1), "unsqueeze cat"),
    "swapaxes": (lambda x: x.swapaxes(1, -1), "transpose"),
    "swapdims": (lambda x: x.swapdims(2, 3), "transpose"),
    "moveaxis": (lambda x: x.moveaxis(1, 3), "movedim"),
    "moveaxis of several": (lambda x: x.moveaxis((1, 2), (3, 1)), "movedim"),
    "mT": (lambda x: x.mT, "transpose"),
    "adjoint": (lambda x: x.adjoint(), "transpose"),
    "H": (lambda x: x[0, 0].H, "transpose"),
    "adjoint of complex numbers": (lambda x: torch.complex(x, x + 1).adjoint().imag, "adjoint"),
    "T": (lambda x: x[0, 0].T, "permute"),
    "tile": (lambda x: x.tile(2, 1), "repeat"),
    "tile to more dimensions": (lambda x: x.tile(3, 1, 2, 1, 1), "repeat"),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), "unsqueeze expand flatten"),
    "repeat_interleave last": (lambda x: x.repeat_interleave(2, -1), "unsqueeze expand flatten"),
    "repeat_interleave the batch": (lambda x: x.repeat_interleave(2, 0), "expand flatten"),
    "repeat_interleave all": (lambda x: x.repeat_interleave(2), "flatten unsqueeze expand"),
    "repeat_interleave by size": (lambda x: x.repeat_interleave(x.shape[0], 1), "expand flatten"),
    "rot90": (lambda x: x.rot90(1, (2, 3)), "flip transpose"),
    "rot90 by 180": (lambda x: x.rot90(2, (1, 3)), "flip"),
    "rot90 by 270": (lambda x: x.rot90(-1, (3, 2)), "flip transpose"),
    "rot90 by 360": (lambda x: x.rot90(4, (2, 3)), "reshape"),
    "ravel": (lambda x: x.ravel(), "flatten"),
    "reshape_as": (lambda x: x.reshape_as(x.permute(0, 3, 2, 1)), "reshape"),
    "fliplr": (lambda x: x.fliplr(), "flip"),
    "flipud": (lambda x: x.flipud(), "flip"),
    "tensor_split": (lambda x: x.tensor_split(4, 1), "split_with_sizes"),
    "tensor_split at indices": (lambda x: x.tensor_split((1, -2, 9), 1), "split_with_sizes"),
    "tensor_split into overlaps": (lambda x: x.tensor_split((4, 2), 1), "tensor_split"),
    "tensor_split of the batch": (lambda x: x.tensor_split(2), "tensor_split"),
    "hsplit": (lambda x: x.hsplit(3), "split_with_sizes"),
    "hsplit at indices": (lambda x: x.hsplit((2, 3)), "split_with_sizes"),
    "hsplit of vectors": (lambda x: x[0, 0, 0].hsplit(4), "split_with_sizes"),
    "vsplit": (lambda x: x[0].vsplit(3), "split_with_sizes"),
    "vsplit at indices": (lambda x: x[0].vsplit((1,)), "split_with_sizes"),
    "dsplit": (lambda x: x.dsplit(2), "split_with_sizes"),
    "dsplit at indices": (lambda x: x.dsplit((1, 5)), "split_with_sizes"),
    "unsafe_chunk": (lambda x: x.unsafe_chunk(2, 1), "chunk"),
    "unsafe_split": (lambda x: x.unsafe_split(4, 1), "split"),
    "unsafe_split_with_sizes": (lambda x: x.unsafe_split_with_sizes([2, 4], 1), "split_with_sizes"),
    "take_along_dim": (lambda x: x.take_along_dim(INDEX, 1), "expand gather"),
    "take_along_dim of one": (lambda x: x[:, :, :1].take_along_dim(INDEX, -3), "expand gather"),
    "take_along_dim of all": (lambda x: x.take_along_dim(INDEX), "take"),
    "broadcast_to": (lambda x: x[:, :1].broadcast_to(x.shape[0], 5, 8, 8), "expand"),
    "native_channel_shuffle": (lambda x: torch.native_channel_shuffle(x, 2), "channel_shuffle"),
    "narrow_copy": (lambda x: torch.narrow_copy(x, 1, 2, 3), "narrow"),
    "select_copy": (lambda x: torch.select_copy(x, 1, 2), "select"),
    "slice_copy": (lambda x: torch.slice_copy(x, 1, 1, 5, 2), "slice"),
    "permute_copy": (lambda x: torch.permute_copy(x, (0, 3, 1, 2)), "permute"),
    "transpose_copy": (lambda x: torch.transpose_copy(x, 1, 2), "transpose"),
    "t_copy": (lambda x: torch.t_copy(x[0, 0]), "t"),
    "view_copy": (lambda x: torch.view_copy(x, (-1, 48, 8)), "reshape"),
    "expand_copy": (lambda x: torch.expand_copy(x[:, :1], (-1, 5, 8, 8)), "expand"),
    "squeeze_copy": (lambda x: torch.squeeze_copy(x[:, :1], 1), "squeeze"),
    "unsqueeze_copy": (lambda x: torch.unsqueeze_copy(x, -1), "unsqueeze"),
    "split_copy": (lambda x: torch.split_copy(x, 4, 1), "split"),
    "split_with_sizes_copy": (
        lambda x: torch.split_with_sizes_copy(x, [1, 5], 1),
        "split_with_sizes",
    ),
    "unbind_copy": (lambda x: torch.unbind_copy(x, 1), "unbind"),
    "unfold_copy": (lambda x: torch.unfold_copy(x, 2, 3, 2), "unfold"),
    "diagonal_copy": (lambda x: torch.diagonal_copy(x, 1, 2, 3), "diagonal"),
    "multiply": (lambda x: torch.multiply(x, x), "mul"),
    "subtract": (lambda x: torch.subtract(x, x[:, :1], alpha=2), "sub"),
    "divide": (lambda x: torch.divide(x, x), "div"),
    "divide and floor": (lambda x: torch.divide(x, 0.3, rounding_mode="floor"), "div"),
    "true_divide": (lambda x: torch.true_divide(x, 3), "div"),
    "negative": (lambda x: torch.negative(x), "neg"),
    "absolute": (lambda x: torch.absolute(x), "abs"),
    "clip": (lambda x: x.clip(-0.5, 1), "clamp"),
    "clip to tensors": (lambda x: x.clip(x[:1], None), "clamp"),
    "mm": (lambda x: x[0, 0].mm(x[0, 1]), "matmul"),
    "linalg.matmul": (lambda x: torch.linalg.matmul(x, x), "matmul"),
    "expit": (lambda x: torch.special.expit(x), "sigmoid"),
    "special.softmax": (lambda x: torch.special.softmax(x, 1), "softmax"),
    "max": (lambda x: x.max(1)[0], "amax"),
    "max that keeps": (lambda x: x.max(-1, keepdim=True).values, "amax"),
    "max with its position": (lambda x: x.max(1), "max"),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool2d(x, 1), "amax"),
    "adaptive_max_pool of one row": (
        lambda x: F.adaptive_max_pool2d(x, (1, 2)),
        "adaptive_max_pool2d",
    ),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x.flatten(2), 1), "amax"),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, 1), "amax"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_another_name_becomes_the_operator_that_has_a_rule(name):
    fn, expected = WRITTEN[name]
    net = Of(fn)
    module = passed(net, X)
    calls = [n for n in module.graph.nodes if n.op == "call_function"]
    assert set(expected.split()) <= {operator_name(n) for n in calls}
    assert not [n for n in calls if n.target in SAME]
    for x in (X, torch.randn(7, 6, 8, 8)):  # the batch stays dynamic
        got, want = module(x), net(x)
        want = [want] if isinstance(want, torch.Tensor) else list(want)
        torch.testing.assert_close(list(got), want, rtol=0, atol=0)
    for node in calls:  # shapes are known to later stages
        assert "val" in node.meta


def test_each_pair_of_names_computes_the_same_and_takes_the_same():
    assert len(SAME) > 40
    for alias, target in SAME.items():
        names = [a.name for a in target._schema.arguments if not a.kwarg_only]
        given = [a.name for a in alias._schema.arguments if not a.kwarg_only]
        assert len(names) == len(given)
        assert not target._schema.is_mutable or alias._schema.is_mutable
    assert not SAME.keys() & set(SAME.values()) and not SAME.keys() & REWRITES.keys()


class Two(nn.Module):
    """Two convolutions, what is done with their outputs, and a convolution."""

    def __init__(self, fn, channels=16):
        super().__init__()
        self.fn, self.last = fn, nn.Conv2d(channels, 4, 1)
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.last(self.fn(self.a(x).relu(), self.b(x).relu()))


INT8 = {
    "concat": lambda a, b: torch.concat([a, b], 1),
    "hstack": lambda a, b: torch.hstack([a, b]),
    "stack": lambda a, b: torch.stack([a, b], 1).flatten(1, 2),
    "swapaxes": lambda a, b: torch.cat([a.swapaxes(2, 3), b.swapdims(2, 3)], 1),
    "tile": lambda a, b: a.tile(1, 2, 1, 1),
    "repeat_interleave": lambda a, b: a.repeat_interleave(2, 1),
    "rot90": lambda a, b: torch.cat([a.rot90(1, (2, 3)), b.rot90(2, (2, 3))], 1),
    "tensor_split": lambda a, b: torch.cat(torch.cat([a, b], 1).tensor_split(3, 1)[::-1], 1),
    "index": lambda a, b: torch.cat([a, b], 1)[:, [3, 2, 1, 0, *range(4, 16)]],
    "multiply": lambda a, b: torch.concat([torch.multiply(a, b), a], 1),
}


@pytest.mark.parametrize("name", INT8)
def test_they_are_int8_between_convolutions(name):
    net = Two(INT8[name])
    q, x = quantize(net, torch.randn(16, 3, 8, 8)), torch.randn(5, 3, 8, 8)
    assert {r.precision for r in rows(q).values()} == {"int8"}
    expected, noise = net(x), net(x) - q(x)
    assert noise.square().mean() < 1e-3 * expected.square().mean()
