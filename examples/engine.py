"""An engine of one's own, from outside Octavo: the quantized graph through torch.compile.

    python examples/engine.py

An engine is a function from a QuantizedModel, and options, to a callable. Its graph holds ATen
operators and `octavo::quantize` / `dequantize`; its signature turns a call into the graph's tensors
and the graph's outputs into what the model returns.
"""

import torch
from torch import nn

import octavo
from octavo.engines.base import register_engine


@register_engine("compiled")
def compiled(model: octavo.QuantizedModel, backend: str = "inductor"):
    """torch.compile's kernels, any batch size; needs a C++ compiler."""
    graph, signature = torch.compile(model.graph_module, backend=backend), model.signature

    def call(*args, **kwargs):
        with torch.no_grad():
            return signature.unflatten(graph(*signature.flatten(args, kwargs)))

    return call


if __name__ == "__main__":
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    q = octavo.quantize(net, torch.rand(32, 3, 8, 8))
    x = torch.rand(5, 3, 8, 8)
    fast = q.compile("compiled")
    print(f"compiled and reference agree to {octavo.sqnr(q(x), fast(x)):.0f} dB")
