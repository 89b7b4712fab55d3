"""Handlers written the way torch.fx's experimental quantizer had them, of PyTorch's own dtypes.

They know nothing of Octavo: `__init__(quantizer, node)`, `observe(node, env)`,
`quantize(quantizer, node, load_arg)`.
"""

import operator

import torch
from torch import nn
from torch.fx import Proxy


def scale_and_zero_point(low, high, qmin, qmax):
    low, high = min(0.0, low), max(0.0, high)
    scale = (high - low) / (qmax - qmin)
    return scale, max(qmin, min(qmax, int(qmin - round(low / scale))))


class Ranged:
    def __init__(self, quantizer, node):
        self.low, self.high, self.all_tensors = float("inf"), float("-inf"), True

    def observe(self, node, env):
        value = env[node.name]
        if not isinstance(value, torch.Tensor):
            self.all_tensors = False
            return
        self.low, self.high = min(self.low, float(value.min())), max(self.high, float(value.max()))


class Quant(Ranged):
    def quantize(self, input):
        scale, zero_point = scale_and_zero_point(self.low, self.high, 0, 255)
        return torch.quantize_per_tensor(Proxy(input), scale, zero_point, torch.quint8).node


class Add(Ranged):
    def quantize(self, quantizer, node, load_arg):
        if not self.all_tensors or not all(isinstance(a, torch.fx.Node) for a in node.args):
            return NotImplemented
        scale, zero_point = scale_and_zero_point(self.low, self.high, 0, 255)
        return quantizer.quantized_graph.create_node(
            "call_function",
            torch.ops.quantized.add,
            load_arg(node.args),
            {"scale": scale, "zero_point": zero_point},
        )


class CopyNode:
    def __init__(self, quantizer, node):
        pass

    def observe(self, node, env):
        pass

    def quantize(self, quantizer, node, load_arg):
        return quantizer.quantized_graph.node_copy(node, load_arg)


class ConvRelu(Ranged):
    """Convolution, maybe relu; it replaces the module in the parent, as the original did."""

    def __init__(self, quantizer, node):
        super().__init__(quantizer, node)
        self.relu = isinstance(quantizer.modules[node.target], nn.ReLU)
        self.conv_node = node.args[0] if self.relu else node
        self.conv = quantizer.modules[self.conv_node.target]

    def quantize(self, quantizer, node, load_arg):
        quantized = torch.ao.nn.quantized if not self.relu else torch.ao.nn.intrinsic.quantized
        kind = quantized.ConvReLU2d if self.relu else quantized.Conv2d
        c = self.conv
        new = kind(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding)
        scale, _ = scale_and_zero_point(float(c.weight.min()), float(c.weight.max()), -128, 127)
        weight = torch.quantize_per_tensor(c.weight.detach(), scale, 0, torch.qint8)
        new.set_weight_bias(weight, c.bias)
        new.scale, new.zero_point = scale_and_zero_point(self.low, self.high, 0, 255)
        parent, _, name = self.conv_node.target.rpartition(".")
        setattr(quantizer.modules[parent], name, new)
        target, args = self.conv_node.target, (load_arg(self.conv_node.args[0]),)
        return quantizer.quantized_graph.create_node("call_module", target, args, {})


PATTERNS = {
    operator.add: Add,
    nn.MaxPool2d: CopyNode,
    nn.Conv2d: ConvRelu,
    (nn.ReLU, nn.Conv2d): ConvRelu,
}
