"""Samples of arithmetic for test_forms: entry -> (its forms, makers of their inputs)."""

import torch
import torch.nn.functional as F

from engines.openvino.forms_inputs import (
    few,
    flags,
    ids,
    images,
    positive,
    reals,
    tenths,
    tokens,
    unit,
    whole,
)

aten = torch.ops.aten


def unary(*names, make=reals, more=(lambda x: x,)):
    return {
        getattr(aten, name): (
            lambda x, name=name: tuple(getattr(aten, name)(f(x)) for f in more),
            make,
        )
        for name in names
    }


def binary(name, *makes, numbers=()):
    """Two tensors, a broadcast one, and numbers."""
    fn = getattr(aten, name)
    return {
        fn: (
            lambda x, y: (fn(x, y), fn(x, y[:, :1]), *(fn(x, n) for n in numbers)),
            *makes,
        )
    }


GENERATED = {
    **unary("relu", "abs", "neg", more=(lambda x: x, lambda x: (x * 3).long())),
    **unary("floor", "ceil", "silu", "hardswish", "hardsigmoid", "mish"),
    **unary("sigmoid", "tanh", "exp", "erf", "sin", "cos", more=(lambda x: x, lambda x: x.long())),
    **unary("log", "sqrt", "rsqrt", make=positive, more=(lambda x: x, lambda x: x.long() + 1)),
    **unary("reciprocal", more=(lambda x: x, lambda x: x.long() * 2 + 1)),
    **unary("bitwise_not", make=whole, more=(lambda x: x, lambda x: x > 0)),
    **unary("logical_not", make=few, more=(lambda x: x, lambda x: x > 0, lambda x: x.long())),
    **binary("mul", reals, whole, numbers=(2, 0.5, -1)),
    **binary("maximum", reals, whole),
    **binary("minimum", whole, whole),
    **binary("bitwise_and", whole, whole, numbers=(5, -2)),
    **binary("bitwise_or", flags, flags),
    **binary("bitwise_xor", whole, flags, numbers=(3,)),
    **binary("__and__", flags, flags),
    **binary("__or__", whole, whole, numbers=(9,)),
    **binary("__xor__", whole, whole, numbers=(1,)),
    **binary("logical_and", flags, whole),
    **binary("logical_or", few, flags),
    **binary("logical_xor", whole, whole),
    **binary("floor_divide", tenths, positive, numbers=(0.1, -0.3, 3)),
    **binary("remainder", tenths, positive, numbers=(0.1, -0.3, 3)),
}
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    GENERATED |= binary(_name, few, whole, numbers=(1, 0.5, True))
for _name, _new, _like in (
    ("zeros", torch.zeros, torch.zeros_like),
    ("ones", torch.ones, torch.ones_like),
):
    GENERATED |= {
        getattr(aten, _name): (
            lambda x, f=_new: (
                *(f(x.shape[0], 3), f((x.shape[2],), dtype=torch.bool), f(2, dtype=torch.int64)),
            ),
            reals,
        ),
        getattr(aten, f"{_name}_like"): (
            lambda x, f=_like: (f(x), f(x, dtype=torch.bool)),
            whole,
        ),
        getattr(aten, f"new_{_name}"): (
            lambda x, n=f"new_{_name}": (
                *(getattr(x, n)(2, x.shape[0]), getattr(x, n)((x.shape[2],), dtype=torch.float32)),
            ),
            whole,
        ),
    }

ARITHMETIC = {
    aten.add: (
        lambda x, y: (x + y, x + 1, y + 0.5, torch.add(x, y, alpha=2), y + x.shape[2], x + x[:1]),
        reals,
        whole,
    ),
    aten.sub: (lambda x, y: (x - y, y - 1, 1 - y, torch.sub(x, y, alpha=0.5)), reals, whole),
    aten.rsub: (
        lambda x, y: (torch.rsub(x, 2), torch.rsub(y, 0.5), torch.rsub(x, y)),
        reals,
        whole,
    ),
    aten.div: (
        lambda x, y: (
            (
                x / 3,
                y / 4,
                x / x.shape[2] ** 0.5,
                torch.div(y, 4, rounding_mode="floor"),
                torch.div(y, -4, rounding_mode="floor"),
            )
        ),
        reals,
        whole,
    ),
    aten.pow: (
        lambda x, y: (x**2, x**3, y**2, y**3, (y.abs() + 1) ** -0.5, 2.0**x, x.abs() ** y),
        unit,
        whole,
    ),
    aten.to: (
        lambda x, y: (
            (
                x.to(torch.int64),
                y.float(),
                x.bool(),
                x.to(y),
                y.to(x.dtype, copy=True),
                x.to("cpu"),
                x.to(torch.float64),
                x.int(),
                y.to(torch.uint8),
                y.bool(),
            )
        ),
        reals,
        whole,
    ),
    aten._to_copy: (
        lambda x: (aten._to_copy(x, dtype=torch.int32), aten._to_copy(x) + 1),
        reals,
    ),
    aten.type_as: (lambda x, y: (x.type_as(y), y.type_as(x), x.type_as(x) + 1), reals, whole),
    aten.clamp: (
        lambda x, y: (
            (
                x.clamp(-1),
                x.clamp(max=1),
                x.clamp(-1, 1),
                y.clamp(-2, 2),
                y.clamp(0.5),
                x.clamp(x[:1] - 1),
                x.clamp(max=y),
                y.clamp(y[:1], 3 + y[:1]),
            )
        ),
        reals,
        whole,
    ),
    aten.clamp_min: (
        lambda x, y: (x.clamp_min(0.5), y.clamp_min(1), y.clamp_min(0.5), x.clamp_min(y)),
        reals,
        whole,
    ),
    aten.clamp_max: (
        lambda x, y: (x.clamp_max(0.5), y.clamp_max(1), y.clamp_max(0.5), x.clamp_max(y)),
        reals,
        whole,
    ),
    aten.hardtanh: (lambda x: (F.hardtanh(x), F.hardtanh(x, -2, 0.5), F.relu6(x * 3)), reals),
    aten.leaky_relu: (
        lambda x: (F.leaky_relu(x), F.leaky_relu(x, 0.3), F.leaky_relu(x, -1)),
        reals,
    ),
    aten.prelu: (
        lambda x, y: (
            *(F.prelu(x, torch.tensor([0.3])), F.prelu(x, torch.tensor([0.1, -1, 2, 0.5]))),
            *(
                F.prelu(y, torch.tensor([0.1, -1, 2, 0.5])),
                F.prelu(x[..., 0], torch.tensor([0.1, -1, 2, 0.5])),
            ),
        ),
        reals,
        images,
    ),
    aten.elu: (lambda x: (F.elu(x), F.elu(x, 0.5)), reals),
    aten.softplus: (
        lambda x: (F.softplus(x * 9), F.softplus(x, threshold=30), F.softplus(x, 2)),
        reals,
    ),
    aten.gelu: (lambda x: (F.gelu(x), F.gelu(x, approximate="tanh")), reals),
    aten.softmax: (
        lambda x, y: (x.softmax(-1), x.softmax(0), x.softmax(1), y.softmax(1, torch.float32)),
        reals,
        whole,
    ),
    aten.log_softmax: (
        lambda x, y: (x.log_softmax(-1), x.log_softmax(1), y.log_softmax(0, torch.float32)),
        reals,
        whole,
    ),
    aten._softmax: (lambda x: (aten._softmax(x, -1, False), aten._softmax(x, 1, False)), reals),
    aten._log_softmax: (lambda x: (aten._log_softmax(x, 1, False),), reals),
    aten.layer_norm: (
        lambda x, y: (
            (
                F.layer_norm(x, (8,)),
                F.layer_norm(x, (8,), torch.arange(8.0)),
                F.layer_norm(x[:, :, None], (1, 8), eps=0.1),
                F.layer_norm(x[:, None] + y[..., :1], (8,)),
                F.layer_norm(x[:, None, None], (8,), bias=torch.ones(8)),
                F.layer_norm(x[:, 0], (8,)),
            )
        ),
        tokens,
        lambda n, s: torch.randn(n, 3, s, 2),
    ),
    aten.group_norm: (
        lambda x, y: tuple(
            F.group_norm(v, g, torch.arange(4.0), torch.ones(4), eps)
            for v, g, eps in ((x, 2, 1e-5), (x, 1, 1e-5), (y, 4, 0.1), (y, 1, 1e-3))
        ),
        reals,
        images,
    ),
    aten.matmul: (
        lambda x, y: (
            (
                x @ y,
                x @ torch.arange(8.0),
                x[:, :, None] @ y[:, None],
                x[0] @ y[0],
                torch.arange(4.0) @ y.transpose(1, 2) @ y,
                x @ y[0],
            )
        ),
        tokens,
        lambda n, s: torch.randn(n, 8, 4),
    ),
    aten.bmm: (lambda x: (torch.bmm(x, x.transpose(1, 2)),), tokens),
    aten.embedding: (
        lambda i: (
            *(F.embedding(i, torch.arange(32.0).view(4, 8)), F.embedding(i, torch.eye(4), 2)),
            *(F.embedding(i[0, 0, 0], torch.eye(4)), F.embedding(i.int(), torch.eye(4), -1)),
        ),
        ids,
    ),
}
