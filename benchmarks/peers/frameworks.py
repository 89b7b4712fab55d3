"""The frameworks that are compared: how each makes a model int8, and how it runs one input."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import octavo

from ..measuring import THREADS, Call, attempt
from ..random_models import images, tiny_model

ANY_BATCH = ({0: torch.export.Dim.DYNAMIC},)

Data = Iterable[Tensor]  # batches, the same each time they are read


class Peer(NamedTuple):
    """`prepare` makes a model of any batch size, `compile` a call of it with one input."""

    title: str
    prepare: Callable[[nn.Module, Data], Any]
    compile: Callable[[Any, Tensor], Call]
    int8: bool = True


def first(data: Data) -> Tensor:
    return next(iter(data))


# ---- PyTorch and Octavo


def keep_float(model: nn.Module, data: Data) -> nn.Module:
    return model


def call_torch(model: nn.Module, x: Tensor) -> Call:
    return partial(model, x)


def quantize_octavo(
    model: nn.Module, data: Data, config: str | octavo.Config = "balanced"
) -> octavo.QuantizedModel:
    return octavo.quantize(model, data, config=config, progress=False)


def compile_octavo(model: octavo.QuantizedModel, x: Tensor, engine: str = "openvino") -> Call:
    options = {} if engine == "torch_int8" else {"threads": THREADS}
    return partial(model.compile(engine, **options), x)


# ---- OpenVINO and NNCF


@torch.no_grad()
def convert_openvino(model: nn.Module, data: Data) -> Any:
    import openvino

    x = first(data)
    shape = openvino.PartialShape([-1, *x.shape[1:]])
    return openvino.convert_model(model, example_input=x, input=[shape])


def openvino_for_shape(model: Any, x: Tensor, threads: int = THREADS, **settings: str) -> Any:
    """The `openvino.Model`, compiled for the shape of `x` and for short calls."""
    import openvino

    fixed = model.clone()
    fixed.reshape(list(x.shape))
    settings |= {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
    return openvino.Core().compile_model(fixed, "CPU", settings)


def compile_openvino(model: Any, x: Tensor, **settings: str) -> Call:
    request = openvino_for_shape(model, x, **settings).create_infer_request()
    infer = partial(request.infer, [x.numpy()], share_inputs=True, share_outputs=True)
    return lambda: infer()[0]


def compile_openvino_float32(model: Any, x: Tensor) -> Call:
    """Not bfloat16, which OpenVINO would choose for a float model where the processor has it."""
    return compile_openvino(model, x, INFERENCE_PRECISION_HINT="f32")


def quantize_nncf(model: nn.Module, data: Data, **settings: Any) -> Any:
    import nncf

    # as its documentation says: without it vit_b_16 has an SQNR of 2 dB instead of 28
    attends = any("attention" in type(module).__name__.lower() for module in model.modules())
    kind = nncf.ModelType.TRANSFORMER if attends else None
    batches = nncf.Dataset(data, Tensor.numpy)
    converted = convert_openvino(model, data)
    return nncf.quantize(converted, batches, model_type=kind, **settings)


def compress_nncf(model: nn.Module, data: Data) -> Any:
    """int8 weights; OpenVINO rounds the inputs of linear layers dynamically, as it likes."""
    import nncf

    return nncf.compress_weights(convert_openvino(model, data))


# ---- ONNX Runtime


def export_onnx(model: nn.Module, data: Data, path: Path) -> None:
    names = {"input_names": ["x"], "dynamic_shapes": ANY_BATCH, "external_data": False}
    torch.onnx.export(model, (first(data),), path, dynamo=True, verbose=False, **names)


def quantize_onnxruntime_dynamic(model: nn.Module, data: Data) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        exported, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        export_onnx(model, data, exported)
        source = preprocessed_onnx(exported)
        quantize_dynamic(source, quantized, per_channel=True, weight_type=QuantType.QInt8)
        return quantized.read_bytes()


def quantize_onnxruntime(model: nn.Module, data: Data) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        exported, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        export_onnx(model, data, exported)
        # unsigned activations are several times faster on x86 than signed ones, the default
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        source, reader = preprocessed_onnx(exported), OnnxReader(data)
        quantize_static(source, quantized, reader, per_channel=True, **types)
        return quantized.read_bytes()


def preprocessed_onnx(exported: Path) -> Path:
    """ONNX Runtime's own preparation for quantizing, or the file as it is where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = exported.with_name("prepared.onnx")
    try:
        quant_pre_process(exported, prepared)
    except Exception:
        return exported
    return prepared


class OnnxReader:
    """Calibration data as ONNX Runtime reads it."""

    def __init__(self, data: Data) -> None:
        self.rest = iter(data)

    def get_next(self) -> dict[str, np.ndarray] | None:
        x = next(self.rest, None)
        return None if x is None else {"x": x.numpy()}


def compile_onnxruntime(model: bytes, x: Tensor) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # threads that wait busily after a call would slow down the next peer
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    run = partial(session.run, None, {"x": x.numpy()})
    return lambda: run()[0]


# ---- torch.ao and its successor


@torch.no_grad()
def quantize_torch_ao(model: nn.Module, data: Data) -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "x86"
    mapping = get_default_qconfig_mapping("x86")
    prepared = prepare_fx(copy.deepcopy(model), mapping, (first(data),))
    for x in data:
        prepared(x)
    return convert_fx(prepared)


@torch.no_grad()
def quantize_torch_ao_dynamic(model: nn.Module, data: Data) -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    torch.backends.quantized.engine = "x86"
    return quantize_dynamic(model, {nn.Linear, nn.LSTM, nn.GRU}, dtype=torch.qint8)


@torch.no_grad()
def quantize_torchao(model: nn.Module, data: Data) -> nn.Module:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    # strict: the quantizer refuses a module called twice, which other graphs show as one
    graph = torch.export.export(model, (first(data),), dynamic_shapes=ANY_BATCH, strict=True)
    prepared = prepare_pt2e(graph.module(), quantizer)
    for x in data:
        prepared(x)
    return convert_pt2e(prepared)


def compile_torchao(model: nn.Module, x: Tensor) -> Call:
    """Needs a C++ compiler; only frozen weights are packed for the integer kernels."""
    import torch._inductor.config as inductor

    compiled = torch.compile(model, dynamic=False, fullgraph=True)
    with torch.inference_mode(), inductor.patch(freezing=True):
        compiled(x)
    return partial(compiled, x)


IN_ONNX_RUNTIME = partial(compile_octavo, engine="onnxruntime")
IN_TORCH = partial(compile_octavo, engine="torch_int8")
PEERS = {
    "eager": Peer("PyTorch float", keep_float, call_torch, int8=False),
    "openvino": Peer("OpenVINO float", convert_openvino, compile_openvino_float32, int8=False),
    "octavo": Peer("Octavo", quantize_octavo, compile_octavo),
    "fast": Peer("Octavo, fast", partial(quantize_octavo, config="fast"), compile_octavo),
    "dynamic": Peer("Octavo, dynamic", partial(quantize_octavo, config="dynamic"), compile_octavo),
    "octavo_onnxruntime": Peer("Octavo, ONNX Runtime", quantize_octavo, IN_ONNX_RUNTIME),
    "octavo_torch": Peer("Octavo, torch_int8", quantize_octavo, IN_TORCH),
    "nncf": Peer("NNCF + OpenVINO", quantize_nncf, compile_openvino),
    "nncf_weights": Peer("NNCF, weights alone", compress_nncf, compile_openvino),
    "onnxruntime": Peer("ONNX Runtime", quantize_onnxruntime, compile_onnxruntime),
    "onnxruntime_dynamic": Peer(
        "ONNX Runtime, dynamic", quantize_onnxruntime_dynamic, compile_onnxruntime
    ),
    "torch.ao": Peer("torch.ao FX", quantize_torch_ao, call_torch),
    "torch.ao_dynamic": Peer("torch.ao, dynamic", quantize_torch_ao_dynamic, call_torch),
    "torchao": Peer("torchao + inductor", quantize_torchao, compile_torchao),
}


# ---- running them


def first_call(peer: Peer, prepared: Any, x: Tensor) -> tuple[Call, Tensor]:
    """The compiled call and a copy of its first output."""
    call = peer.compile(prepared, x)
    with torch.inference_mode():
        return call, torch.as_tensor(call()).clone()


def warm_up(peers: Iterable[str]) -> None:
    """Use all cores, silence logs, and do each peer's imports, so that no time includes them."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", octavo.CollapseWarning)  # it lists sites left float
    torch.set_num_threads(THREADS)
    data = list(images(16, batch=8, seed=0, size=32))
    for peer in map(PEERS.get, peers):
        attempt(lambda p: first_call(p, p.prepare(tiny_model(), data), data[0]), peer)
