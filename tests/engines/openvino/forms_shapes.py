"""Samples of shapes, pieces and masks for test_forms: entry -> (its forms, input makers)."""

import math
import operator

import torch
import torch.nn.functional as F

from engines.openvino.forms_inputs import few, flags, ids, images, reals, whole

aten = torch.ops.aten

SHAPES = {
    aten.amax: (lambda x, y: (x.amax(), x.amax((1, -1), True), y.amax(0)), reals, whole),
    aten.amin: (lambda x, y: (x.amin(-1), x.amin((0, 2)), y.amin([1], True)), reals, whole),
    aten.sum: (
        lambda x, y, c: (
            x.sum(),
            x.sum((0, -1)),
            y.sum(1, True),
            c.sum(-1),
            c.sum(dtype=torch.float32),
        ),
        *(reals, whole, flags),
    ),
    aten.mean: (
        lambda x, y: (x.mean(), x.mean((1, 2), True), y.mean(0, dtype=torch.float32)),
        reals,
        whole,
    ),
    aten.cumsum: (
        lambda x, c: (x.cumsum(-1), x.cumsum(0), c.cumsum(1), c.cumsum(-1, dtype=torch.float32)),
        reals,
        flags,
    ),
    aten.linalg_vector_norm: (
        lambda x: (
            x.norm(dim=-1),
            torch.linalg.vector_norm(x, 1, (0, 1), True),
            torch.linalg.vector_norm(x),
        ),
        reals,
    ),
    aten.argmax: (
        lambda x, y: (x.argmax(-1), x.argmax(0, True), y.argmax(1), x.int().argmax(2)),
        few,
        whole,
    ),
    aten.argmin: (lambda x, y: (x.argmin(-1), x.argmin(1, True), y.argmin(0)), few, whole),
    aten.max: (lambda x, y: (x.max(), *x.max(1), *y.max(-1, True), torch.max(x, y)), few, whole),
    aten.min: (
        lambda x, y: (y.min(), *x.min(0), *y.min(-1, True), torch.min(y, y[:1])),
        few,
        whole,
    ),
    aten.reshape: (
        lambda x: (
            *(x.reshape(-1), x.reshape(x.shape[0], -1), x.reshape(-1, 2, x.shape[2])),
            *(x.reshape(x.shape[0] * x.shape[2], 4), x.reshape(2, 2, *x.shape[::2])),
        ),
        reals,
    ),
    aten.view: (lambda x: (x.view(-1, 4, 1, x.shape[2]), x.view(x.shape[0], -1)), reals),
    aten._unsafe_view: (lambda x: (aten._unsafe_view(x, [x.shape[0], -1]),), reals),
    aten.flatten: (
        lambda x: (x.flatten(), x.flatten(1), x.flatten(1, 2), x.flatten(0, -2), x.flatten(2)),
        images,
    ),
    aten.unflatten: (
        lambda x: (x.unflatten(1, (2, 2)), x.unflatten(-3, (-1, 2)), x.unflatten(0, (-1, 1))),
        images,
    ),
    aten.sym_size: (lambda x: (x.reshape(x.shape[0], x.shape[-1] * 4),), reals),
    aten.permute: (lambda x: (x.permute(0, -1, 1, 2), x.permute(3, 2, 1, 0)), images),
    aten.transpose: (lambda x: (x.transpose(0, -1), x.transpose(-2, -1)), images),
    aten.swapaxes: (lambda x: (x.swapaxes(0, -1), x.swapaxes(1, 2)), images),
    aten.swapdims: (lambda x: (x.swapdims(0, -1), x.swapdims(1, 2)), images),
    aten.t: (lambda x: (x[0].t(), x[0, 0].t() + 1), reals),
    aten.unsqueeze: (lambda x: (x[None], x.unsqueeze(-1), x.unsqueeze(2), x.unsqueeze(-2)), reals),
    aten.squeeze: (
        lambda x: (
            x[:, :1].squeeze(1),
            x[:, :1].squeeze(-2),
            x.squeeze(1),
            x[:, :1, None].squeeze((1, 2)),
        ),
        reals,
    ),
    aten.expand: (
        lambda x: (
            *(
                x[:, :1].expand(-1, 5, -1),
                x.expand(2, *x.shape),
                x[:1, :1].expand(x.shape[2], 3, -1),
            ),
            *(x[:, :, None].expand(-1, -1, x.shape[0], -1), x[0, 0, :1].expand(x.shape[0])),
        ),
        reals,
    ),
    aten.expand_as: (
        lambda x: (x[:, :1].expand_as(x), x[0, 0].expand_as(x), x[:, :, :1].expand_as(x)),
        reals,
    ),
    aten.slice: (
        lambda x: (
            *(
                x[:, 1::2],
                x[..., -3:],
                x[..., :-2],
                x[..., 2:99],
                x[:, -99:3],
                x[..., ::3],
                x[..., -2:-1],
            ),
            *(
                x[..., x.shape[2] // 2 :],
                x[..., : x.shape[2] - 1],
                x[..., x.shape[2] // 3 : -1 : 2],
            ),
        ),
        reals,
    ),
    aten.select: (lambda x: (x[0], x[:, -1], x[..., -2], x.select(-1, x.shape[2] // 2)), reals),
    aten.repeat: (
        lambda x: (x.repeat(2, 1, 3), x.repeat(1, 1, 1, 2), x.repeat(1, x.shape[2], 1)),
        reals,
    ),
    aten.roll: (
        lambda x: (
            x.roll(1, -1),
            x.roll((1, -2), (0, 2)),
            x.roll(-9, 1),
            x.roll(x.shape[2] // 2, 2),
        ),
        reals,
    ),
    aten.pixel_shuffle: (lambda x: (F.pixel_shuffle(x, 2),), images),
    aten.pixel_unshuffle: (lambda x: (F.pixel_unshuffle(x.repeat(1, 1, 2, 2), 2),), images),
    aten.pad: (
        lambda x, y: (
            *(F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 1), value=-math.inf), F.pad(y, (1, 1), value=3)),
            *(
                F.pad(x, (2, 1), mode="reflect"),
                F.pad(x, (2, 1), mode="replicate"),
                F.pad(x, (-1, 2)),
            ),
        ),
        reals,
        whole,
    ),
    aten.constant_pad_nd: (
        lambda x: (aten.constant_pad_nd(x, [1, 2]), aten.constant_pad_nd(x, [0, 1, -1, 0], 0.5)),
        reals,
    ),
}
PIECES = {
    aten.cat: (
        lambda x, y: (torch.cat([x, x], -1), torch.cat([x, y], 1), torch.cat([y[:1], y])),
        reals,
        whole,
    ),
    aten.stack: (
        lambda x, y: (torch.stack([x, x], -1), torch.stack([x, y], 1), torch.stack([y])),
        reals,
        whole,
    ),
    aten.split: (lambda x: (*x.split(3, 1), *x.split(9, 1), *x.split([1, 3], -2)), reals),
    aten.split_with_sizes: (
        lambda x: (*x.split([1, 3], 1), *x.split([2, x.shape[2] - 2], -1)),
        reals,
    ),
    aten.chunk: (lambda x: (*x.chunk(3, 1), *x.chunk(2, -1)[:2]), reals),
    aten.tensor_split: (
        lambda x: (
            *x.tensor_split(3, 1),
            *x.tensor_split(3, -1),
            *x.tensor_split((1, 4), 2),
            *x.tensor_split((-2,), 2),
        ),
        reals,
    ),
    aten.unbind: (lambda x: (*x.unbind(1), *x[:, :2].unbind(-2)), reals),
    operator.getitem: (lambda x: (x.split(1, 1)[-1],), reals),
    aten.diff: (
        lambda x, y: (x.diff(), x.diff(2, 1), y.diff(dim=0), x.diff(prepend=x[..., :1])),
        reals,
        whole,
    ),
    aten.kthvalue: (
        lambda x: (*x.kthvalue(2, 1), *x.kthvalue(3, -1, True), x.kthvalue(1, 2)[0]),
        reals,
    ),
}
MASKS = {
    aten.full: (
        lambda x: (
            (
                torch.full((x.shape[0], 2), 7),
                torch.full((3,), 0.5),
                torch.full((x.shape[2],), True),
                torch.full((2, 2), x.shape[0]),
                torch.full((2,), 1, dtype=torch.float32),
            )
        ),
        reals,
    ),
    aten.full_like: (
        lambda x: (torch.full_like(x, 2), torch.full_like(x, 2.5, dtype=torch.float32)),
        whole,
    ),
    aten.new_full: (
        lambda x: (x.new_full((x.shape[2],), 2), x.new_full((2,), 0.5, dtype=torch.float32)),
        whole,
    ),
    aten.scalar_tensor: (
        lambda x: (
            x + torch.scalar_tensor(x.shape[0]),
            torch.scalar_tensor(2, dtype=torch.int64) + x,
        ),
        reals,
    ),
    aten.arange: (
        lambda x: (
            (
                torch.arange(x.shape[2]),
                torch.arange(1, x.shape[2], 2),
                torch.arange(x.shape[0], -3, -2),
                torch.arange(x.shape[2], dtype=torch.float32),
                torch.arange(0, 1, 0.1),
                torch.arange(5),
            )
        ),
        reals,
    ),
    aten.triu: (
        lambda x, c: (x.triu(), x.triu(1), x.triu(-2), c.triu(), x.long().triu(2)),
        reals,
        flags,
    ),
    aten.tril: (
        lambda x, c: (x.tril(), x.tril(1), x.tril(-2), c.tril(), x.tril(x.shape[0])),
        reals,
        flags,
    ),
    aten.where: (
        lambda c, x, y: (
            (
                torch.where(c, x, y),
                torch.where(c, x, -1000000000.0),
                torch.where(c, 1, y),
                torch.where(c, 0.5, y),
                torch.where(c[:, :1], x, x[:1]),
                torch.where(y > 0, 1, 0),
            )
        ),
        *(flags, reals, whole),
    ),
    aten.masked_fill: (
        lambda x, y, c: (
            (
                x.masked_fill(c, -math.inf),
                y.masked_fill(c, 7),
                x.masked_fill(c[:, :1], 1),
                x[:1].masked_fill(c, 2),
                x.masked_fill(c, x.sum()),
            )
        ),
        *(reals, whole, flags),
    ),
    aten.index_select: (
        lambda x, i: (
            x.index_select(-2, i[0, 0]),
            x.index_select(0, i[0, 0] * 0),
            x.index_select(1, i[0, 0, 0]),
        ),
        reals,
        ids,
    ),
    aten.gather: (
        lambda x, i: (
            x.gather(1, i),
            x.gather(-2, i[:1]),
            x.gather(1, i[..., :2]),
            x.gather(2, i[:, :, 1:]),
        ),
        reals,
        ids,
    ),
    aten.index: (
        lambda x, i: (
            (
                x[:, i[0, 0]],
                x[:, i[0, :, 0] - 4],
                x[i[0, 0] * 0, i[0, 0]],
                x[torch.arange(x.shape[0])[:, None], i[:, 0] - 4],
                x[i[0, 0] * 0, i[0, 0], i[0, 0] - 2],
            )
        ),
        reals,
        ids,
    ),
}
