"""Samples of layers, pooling, resizing and sizes for test_forms: entry -> (its forms, makers)."""

import math
import operator

import torch
import torch.nn.functional as F

from engines.openvino.forms_inputs import cubes, images, of_each_size, reals, tokens

aten = torch.ops.aten

NORMAL = torch.randn(6, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def weights(d, groups=1):
    """A weight for 4 channels of a group's, and a bias for 6."""
    shape = (6, 4 // groups, *[3] * d)
    return NORMAL.flatten()[: math.prod(shape)].view(shape), NORMAL[:, 0, 0, 0, 0]


def conv(x, d, fn):
    w, b = weights(d)
    w2, _ = weights(d, groups=2)
    return (
        *(fn(x, w, b), fn(x, w, None, [2], [1]), fn(x, w, b, [1] * d, [2] * d, [2] * d)),
        *(fn(x, w2, b, [1], [1], [1], 2), fn(x, w, b, [1], "same"), fn(x, w, b, [2], "valid")),
    )


def conv_transpose(x, d, fn):
    w, b = weights(d)
    w, w2 = w.transpose(0, 1), w[:4, :3]
    free = [x.shape[-1] % 2] + [0] * (d - 1)
    return (
        *(fn(x, w, b), fn(x, w, None, [2], [1], [1]), fn(x, w2, b, [2], [0], [0], 2)),
        *(fn(x, w, b, [1], [0], [0], 1, [2]), fn(x, w, b, [2], [1], free[::-1])),
        fn(x, w2, b, [3], [0], free, 2),
    )


POOLED = {
    **of_each_size(
        "max_pool%dd",
        lambda x, d, f: f(x, 2),
        lambda x, d, f: f(x, [3] * d, [2] * d, [1] * d, 1, True),
        lambda x, d, f: f(x, 2, 3, 1, 1, True),
        lambda x, d, f: f(x, 2, 1, 0, 2),
    ),
    **of_each_size(
        "avg_pool%dd",
        lambda x, d, f: f(x, [2] * d),
        lambda x, d, f: f(x, [3] * d, [2] * d, [1] * d, True, False),
        lambda x, d, f: f(x, [3] * d, [2] * d, [0] * d, True),
        lambda x, d, f: f(x, [3] * d, [2] * d, [1] * d, False, True),
        lambda x, d, f: f(x, [2] * d, [3] * d, [0] * d, True, False),
    ),
    **of_each_size(
        "adaptive_avg_pool%dd",
        lambda x, d, f: f(x, [1] * d),
        lambda x, d, f: f(x, [3] * d),
        lambda x, d, f: f(x, [2] * (d - 1) + [x.shape[2] // 2 + 1 if d > 1 else 2]),  # int in 1-D
    ),
}


def interpolated(mode, align=None):
    """Sizes and factors, with and without their recomputation."""

    def forms(x):
        d = x.dim() - 2
        options = {"mode": mode, **({} if align is None else {"align_corners": align})}
        return (
            *(F.interpolate(x, scale_factor=s, **options) for s in (2.0, 0.5, 0.6, 1.3, 0.37)),
            F.interpolate(x, scale_factor=0.6, recompute_scale_factor=True, **options),
            *(F.interpolate(x, s, **options) for s in ([9] * d, [1] * d)),
            F.interpolate(x, [*[7] * (d - 1), x.shape[-1] * 2 + 1], **options),
            F.interpolate(x, [*[x.shape[2] // 2 + 1] * (d - 1), x.shape[-1] * 2], **options),
        )

    return forms


RESIZED = {
    **{
        getattr(aten, f"upsample_nearest{d}d"): (interpolated("nearest"), make)
        for d, make in ((1, reals), (2, images), (3, cubes))
    },
    **{
        getattr(aten, f"_upsample_nearest_exact{d}d"): (interpolated("nearest-exact"), make)
        for d, make in ((1, reals), (2, images), (3, cubes))
    },
    **{
        getattr(aten, f"upsample_{mode}{d}d"): (
            lambda x, m=mode: interpolated(m, False)(x) + interpolated(m, True)(x),
            make,
        )
        for mode, d, make in (
            ("linear", 1, reals),
            ("bilinear", 2, images),
            ("bicubic", 2, images),
            ("trilinear", 3, cubes),
        )
    },
}
SIZES = {
    operator.add: (lambda x: (x.repeat(x.shape[0] + 1, 1, 1),), reals),
    operator.sub: (lambda x: (x[..., : x.shape[2] - 2],), reals),
    operator.mul: (lambda x: (x.reshape(x.shape[0] * 4, -1), F.interpolate(x, 3 * 2)), reals),
    operator.mod: (lambda x: (torch.full((2,), x.shape[2] % 3),), reals),
    operator.floordiv: (
        lambda x: (torch.full((2,), x.shape[2] // 3), torch.full((2,), -x.shape[2] // 3)),
        reals,
    ),
    operator.neg: (lambda x: (torch.full((2,), -x.shape[2]),), reals),
    operator.truediv: (lambda x: (x * (x.shape[2] / 3), x * (1 / x.shape[0])), reals),
    operator.pow: (lambda x: (x * x.shape[2] ** 0.5, x * x.shape[0] ** 2), reals),
    torch.sym_float: (lambda x: (x * (x.shape[2] * 0.5), x + x.shape[0] * 0.3), reals),
    torch.sym_max: (lambda x: (torch.full((2,), torch.sym_max(x.shape[2], 9)),), reals),
    torch.sym_min: (lambda x: (torch.full((2,), torch.sym_min(x.shape[2], 9)),), reals),
    round: (lambda x: (torch.full((2,), round(x.shape[2] * 0.3)),), reals),
    math.floor: (lambda x: (torch.full((2,), math.floor(x.shape[2] * 0.29)),), reals),
    math.ceil: (lambda x: (torch.full((2,), math.ceil(x.shape[2] * 0.3)),), reals),
    math.trunc: (lambda x: (torch.full((2,), math.trunc(x.shape[2] * 1.3)),), reals),
}
LAYERS = {
    **{
        getattr(aten, f"conv{d}d"): (lambda x, d=d: conv(x, d, getattr(aten, f"conv{d}d")), make)
        for d, make in ((1, reals), (2, images), (3, cubes))
    },
    **{
        getattr(aten, f"conv_transpose{d}d"): (
            lambda x, d=d: conv_transpose(x, d, getattr(aten, f"conv_transpose{d}d")),
            make,
        )
        for d, make in ((1, reals), (2, images), (3, cubes))
    },
    aten.linear: (
        lambda x: (
            (
                F.linear(x, torch.arange(24.0).view(3, 8)),
                F.linear(x[:, 0], torch.eye(8), torch.ones(8)),
                F.linear(x[:, None], torch.eye(8)[:5], torch.ones(5)).relu(),
                F.linear(x[:, 0], torch.eye(8)),
            )
        ),
        tokens,
    ),
}
