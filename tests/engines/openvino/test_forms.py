"""Every entry of OpenVINO's table, in many forms of its arguments and at free sizes.

A sample returns a tuple of forms; batch and length (or image size) are free, and it runs at two of
each, first compiled for the shape and then for any. An entry without a sample fails the last test.
"""

import pytest
import torch

from engines.openvino.forms_arithmetic import ARITHMETIC, GENERATED
from engines.openvino.forms_layers import LAYERS, POOLED, RESIZED, SIZES
from engines.openvino.forms_shapes import MASKS, PIECES, SHAPES
from engines.openvino.operator_cases import Lambda
from octavo.capture.export import capture
from octavo.engines.base import compile_graph
from octavo.engines.openvino.build import WEIGHTED, Builder
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.recurrent import KINDS
from octavo.engines.openvino.table import TABLE
from octavo.passes import run_passes

SAMPLES = {
    **GENERATED,
    **ARITHMETIC,
    **SHAPES,
    **PIECES,
    **MASKS,
    **POOLED,
    **RESIZED,
    **SIZES,
    **LAYERS,
}


def name(target):
    return getattr(target, "__name__", str(target))


@pytest.mark.parametrize("target", SAMPLES, ids=name)
def test_an_entry_computes_what_pytorch_does_in_all_forms_at_free_sizes(target, monkeypatch):
    fn, *makes = SAMPLES[target]
    args, other = ([make(*sizes) for make in makes] for sizes in ((3, 8), (2, 10)))
    captured = capture(Lambda(fn).eval(), tuple(args), None, [(tuple(other), {})])
    nodes = captured.graph.nodes
    assert target in {getattr(n.target, "overloadpacket", n.target) for n in nodes}
    graph, signature = run_passes(captured)
    Builder(graph, signature).build()  # raises Unsupported where the frontend would be needed
    monkeypatch.setattr(CompiledModel, "shapes", 1)  # the second shape is compiled as any
    fast = compile_graph(graph, signature)
    for shape in ((5, 7), (1, 13)):
        args = [make(*shape) for make in makes]
        for form, (got, expected) in enumerate(zip(fast(*args), fn(*args), strict=True)):
            assert (got.shape, got.dtype) == (expected.shape, expected.dtype), form
            torch.testing.assert_close(
                got, expected, rtol=1e-4, atol=1e-5, msg=lambda m, f=form: f"form {f}: {m}"
            )


def test_every_entry_has_a_sample():
    recurrent = {f"{kind}{cell}" for kind in KINDS for cell in ("", "_cell")}  # in test_recurrent
    missing = {name(t) for t in (*TABLE, *WEIGHTED) if t not in SAMPLES}
    assert missing == recurrent
