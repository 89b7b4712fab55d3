"""Which operators of PyTorch a file may name; `octavo.load` builds no others.

An operator of ATen is allowed if its schema shows that it computes new values from its arguments:
it writes to none of them, takes only tensors, numbers, texts and devices, and returns tensors or
numbers. `DENIED` lists the ones whose schema hides something else. Operators whose names start
with an underscore are implementation details with few checks of their own: only those that
torch.export leaves in graphs are allowed, listed in `INTERNAL`.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import torch
from torch._ops import OpOverload

from ..errors import FormatError

# Reason -> patterns of names of ATen operators.
DENIED: dict[str, str] = {
    "returns memory as it found it, or changes a tensor's storage": (
        "empty* new_empty* resize* set"
    ),
    "reads a file, or the state of the process, or computes with types": (
        "from_file data get_gradients is_distributed is_leaf is_pinned output_nr pin_memory"
        " can_cast promote_types result_type retains_grad"
    ),
    "works on sparse, nested or quantized tensors, which no file holds": (
        "*sparse* *col_indices* *row_indices* indices indices_copy values values_copy coalesce"
        " is_coalesced dense_dim to_dense hspmm smm sspaddmm *nested* to_padded_tensor"
        " quantize_per_* quantized_* dequantize int_repr q_* qscheme choose_qparams_optimized"
    ),
    "is a library's own kernel, below the operator that checks its arguments": (
        "cudnn_* miopen_* mkldnn_* to_mkldnn mps_* fbgemm_* *_overrideable thnn_* slow_conv*"
        " batch_norm_* conv_depthwise3d flatten_dense_tensors unflatten_dense_tensors"
    ),
    "belongs to training": (
        "*_backward *_backward_* *_jvp embedding_renorm infinitely_differentiable_*"
    ),
}
# What PyTorch's composite operators are made of, where capture had to take them apart.
_INTERNAL = """
    __and__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d
    _addmm_activation _assert_async _assert_scalar _assert_tensor_metadata _cdist_forward _conj
    _conj_copy _conj_physical _conv_depthwise2d _convolution _convolution_mode _dim_arange
    _dirichlet_grad _euclidean_dist _fake_quantize_learnable_per_channel_affine
    _fake_quantize_learnable_per_tensor_affine
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _fft_c2c _fft_c2r _fft_r2c
    _fused_rms_norm _histogramdd_bin_edges _histogramdd_from_bin_cts
    _histogramdd_from_bin_tensors _int_mm _is_all_true _is_any_true _linalg_det _linalg_eigh
    _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd _local_scalar_dense _log_softmax
    _logcumsumexp _native_batch_norm_legit_no_training _neg_view _neg_view_copy
    _pad_circular _pad_enum _pdist_forward _prelu_kernel _reshape_alias _reshape_copy
    _safe_softmax _sample_dirichlet _scaled_dot_product_attention_math
    _scaled_dot_product_flash_attention_for_cpu _shape_as_tensor _softmax _standard_gamma
    _to_copy _trilinear _unique _unique2 _unsafe_index _unsafe_index_put _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm
    _weight_norm_interface
"""
INTERNAL = frozenset(_INTERNAL.split())
TORCHVISION = ("deform_conv2d", "nms", "ps_roi_align", "ps_roi_pool", "roi_align", "roi_pool")
# Buffers that a model writes to are state; sizes are checked without a result.
EXCEPTIONS = frozenset(("copy_", "sym_constrain_range", "sym_constrain_range_for_size"))

_denied = re.compile("|".join(fnmatch.translate(p) for p in " ".join(DENIED.values()).split()))
_type = re.compile(r"(?:(?:Optional|List)\[)*(\w+)\]*")  # Optional[List[int]] is of int
_TAKEN = {"Tensor", "int", "float", "number", "bool", "str", "Device", "Generator"}
_RETURNED = {"Tensor", "int", "float", "number", "bool"}


def find_overload(name: str) -> OpOverload | None:
    """The operator with a name such as "aten.add.Tensor", if a file may hold it; else None.

    It is looked up in PyTorch's table of operators; nothing that a file names is imported. Raises
    FormatError for an operator of torchvision where that package is missing.

    >>> find_overload("aten.relu.default"), find_overload("aten.from_file.default")
    (<OpOverload(op='aten.relu', overload='default')>, None)
    """
    namespace, packet, overload = (*name.split(".", 2), "", "")[:3]
    if namespace == "torchvision" and packet in TORCHVISION:
        _import_torchvision(name)
        return _registered(namespace, packet, overload)
    if namespace != "aten" or (packet.startswith("_") and packet not in INTERNAL):
        return None
    found = None if _denied.fullmatch(packet) else _registered(namespace, packet, overload)
    return found if found is not None and _computes(found) else None


def _registered(namespace: str, packet: str, overload: str) -> OpOverload | None:
    """An operator that PyTorch dispatches; those of TorchScript alone also warn, hash or seed."""
    named = packet.isidentifier() and overload.isidentifier() and not overload.startswith("_")
    full = f"{namespace}::{packet}" + ("" if overload == "default" else f".{overload}")
    if not named or not torch._C._dispatch_has_kernel(full):
        return None
    found: OpOverload = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    return found


def _computes(overload: OpOverload) -> bool:
    """Whether an operator's schema says that it computes new values from values in a graph."""
    schema, name = overload._schema, overload.overloadpacket.__name__
    if name in EXCEPTIONS or name in INTERNAL:
        return name == "copy_" or not schema.is_mutable
    taken, returned = ({_base(a.type) for a in of} for of in (schema.arguments, schema.returns))
    return not schema.is_mutable and taken <= _TAKEN and set() < returned <= _RETURNED


def _base(kind: Any) -> str:
    found = _type.fullmatch(str(kind))
    return found[1] if found else ""


def _import_torchvision(name: str) -> None:
    """Registers its operators; the one package that loading a file may import, if it is there."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as e:  # not there, or made for another version of torch
        raise FormatError(
            f"the operator {name} is torchvision's, which cannot be imported: {e}. Install the "
            "version that fits this version of torch"
        ) from e
