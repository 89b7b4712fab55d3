import builtins
import fnmatch

import pytest
import torch

from octavo import FormatError
from octavo.graph.op_allowlist import DENIED, EXCEPTIONS, INTERNAL, find_overload
from octavo.graph.operators import OPERATORS

# The operators that files of the first format could hold: they stay allowed.
FIRST_FORMAT = """
    __and__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d
    _assert_async _assert_scalar _assert_tensor_metadata _cdist_forward _conj _conj_physical
    _conv_depthwise2d _fft_c2c _fft_c2r _fft_r2c _is_all_true _is_any_true _local_scalar_dense
    _log_softmax _native_batch_norm_legit_no_training _pdist_forward _reshape_alias
    _safe_softmax _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_index
    _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _weight_norm
    _weight_norm_interface abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addbmm
    addcdiv addcmul addmm addmv addr affine_grid_generator alias all alpha_dropout amax amin
    aminmax angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin
    argsort asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d
    avg_pool3d baddbmm batch_norm bilinear bincount bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor block_diag bmm broadcast_tensors broadcast_to
    bucketize cartesian_prod cat cdist ceil celu channel_shuffle chunk clamp clamp_max clamp_min
    clip clone col2im column_stack complex concat concatenate conj conj_physical constant_pad_nd
    contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    convolution copy copy_ copysign cos cosh cosine_similarity count_nonzero cross cummax cummin
    cumprod cumsum deg2rad det detach detach_copy diag diag_embed diagflat diagonal diff digamma
    dist div divide dot dropout einsum elu embedding embedding_bag eq equal erf erfc erfinv exp
    exp2 expand expand_as expand_copy expm1 eye feature_alpha_dropout feature_dropout fft_fft
    fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn
    fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq
    fft_rfftn fill fix flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod
    frac frexp frobenius_norm full full_like gather ge gelu glu greater greater_equal
    grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt hamming_window
    hann_window hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 im2col imag index
    index_add index_copy index_fill index_put index_reduce index_select inner instance_norm
    inverse isfinite isin isinf isnan isneginf isposinf isreal kron kthvalue layer_norm ldexp le
    leaky_relu lerp less less_equal lgamma lift_fresh_copy linalg_cross linalg_inv linalg_norm
    linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp
    logaddexp2 logcumsumexp logical_and logical_not logical_or logical_xor logit logspace
    logsumexp lstm lstm_cell lt masked_fill masked_scatter masked_select matmul max max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices maximum mean median meshgrid min minimum mish mm moveaxis movedim
    mul multiply mv nan_to_num nanmean nansum narrow native_batch_norm native_group_norm
    native_layer_norm ne neg negative new_full new_ones new_zeros nonzero nonzero_numpy norm
    not_equal numel numpy_T one_hot ones ones_like outer pad pairwise_distance permute
    permute_copy pinverse pixel_shuffle pixel_unshuffle polar positive pow prelu prod quantile
    rad2deg rand rand_like randint randn randn_like ravel real reciprocal reflection_pad1d
    reflection_pad2d reflection_pad3d relu relu6 remainder repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d reshape reshape_as resolve_conj
    resolve_neg rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round rrelu
    rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce
    searchsorted select select_copy select_scatter selu sgn sigmoid sign signbit silu sin sinc
    sinh size slice slice_copy slice_scatter softmax softplus softshrink sort special_erf
    special_erfc special_exp2 special_expit special_expm1 special_gammaln special_log1p
    special_log_softmax special_logit special_ndtr special_softmax split split_copy
    split_with_sizes split_with_sizes_copy sqrt square squeeze squeeze_copy stack std std_mean
    stft sub subtract sum swapaxes swapdims sym_constrain_range sym_constrain_range_for_size
    sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride t t_copy take
    take_along_dim tan tanh tensor_split tensordot threshold tile to topk trace transpose
    transpose_copy tril tril_indices triu triu_indices true_divide trunc type_as unbind
    unbind_copy unflatten unfold unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes
    unsqueeze unsqueeze_copy upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean
    view view_as view_as_complex view_as_complex_copy view_as_real view_as_real_copy view_copy
    vstack where xlogy zeros zeros_like
"""
ATEN = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::")]


def in_files(name):
    """ "aten::add.Tensor" as files have it."""
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return f"aten.{packet}.{overload or 'default'}"


FOUND = {name: op for name in map(in_files, ATEN) if (op := find_overload(name)) is not None}


def test_what_older_files_hold_and_every_row_of_the_operator_table_is_allowed():
    allowed = {name.split(".")[1] for name in FOUND}
    assert set(FIRST_FORMAT.split()) <= allowed
    assert OPERATORS.keys() <= allowed
    assert allowed >= INTERNAL | EXCEPTIONS  # PyTorch has them all
    assert len(allowed) > 700


def test_none_writes_and_all_compute_something():
    for name, op in FOUND.items():
        schema = op._schema
        assert str(op) == name
        assert not schema.is_mutable or name == "aten.copy_.default"
        # "Storage", "Stream", classes: nothing of these is in a graph
        kinds = {str(a.type) for a in (*schema.arguments, *schema.returns)}
        known = ("Tensor", "int", "float", "number", "bool", "str", "Device", "Generator")
        assert all(any(k in kind for k in known) and "torch" not in kind for kind in kinds)


@pytest.mark.parametrize(
    "name",
    [
        "max_unpool2d.default",
        "istft.default",
        "stft.center",
        "linalg_svd.default",
        "linalg_svdvals.default",
        "_unique2.default",
        "unique_consecutive.default",
        "histc.default",
        "fake_quantize_per_tensor_affine.default",
        "_upsample_nearest_exact2d.vec",
        "bernoulli.p",
        "normal_functional.default",
        "multinomial.default",
        "cross_entropy_loss.default",
        "cov.default",
        "linalg_eigh.default",
        "max_pool2d_with_indices.default",
        "nonzero_static.default",
    ],
)
def test_operators_of_models_are_allowed(name):
    assert find_overload(f"aten.{name}") is not None


@pytest.mark.parametrize(
    "name",
    [
        *("from_file.default", "set_.source_Storage", "set_.default", "set.source_Storage"),
        *("set.default", "resize_.default", "resize.default", "resize_as.default", "as_strided_"),
        *(
            "empty.memory_format",
            "empty_like.default",
            "new_empty.default",
            "empty_strided.default",
        ),
        *("add_.Tensor", "add.out", "relu.out", "_print.default", "_backward.default"),
        *("save", "save.default", "warn.default", "warn_stacklevel.default", "manual_seed.default"),
        *("hash.default", "hash.generic", "format.default", "mul.left_t", "add.str", "add.t"),
        *("_linalg_check_errors.default", "_cufft_clear_plan_cache.default", "_pin_memory.default"),
        *("pin_memory.default", "is_pinned.default", "get_gradients.default", "data.default"),
        *("_foreach_add.Scalar", "_fused_adam.default", "convolution_backward.default"),
        *("sparse_coo_tensor.indices", "_sparse_mm.default", "to_mkldnn.default"),
        *("mkldnn_rnn_layer.default", "quantized_lstm.input", "quantize_per_tensor.default"),
        *("cudnn_convolution.default", "_test_check_tensor.default", "_make_dual.default"),
        *("relu.__globals__", "relu._op", "__class__.mro", "relu", "relu.", ".default", ""),
    ],
)
def test_all_others_are_not(name):
    assert find_overload(f"aten.{name}") is None


@pytest.mark.parametrize(
    "name",
    [
        *("prims.convert_element_type.default", "prim.Print.default", "quantized.conv2d.new"),
        *("image.read_file.default", "torchvision._cuda_version.default", "inductor.seed.default"),
        *("torchvision._roi_align_backward.default", "debugprims.load_tensor.default", "os.system"),
        *("higher_order.cond.default", "octavo.quantize.default", "aten", "relu.default", ""),
    ],
)
def test_other_namespaces_are_not(name):
    assert find_overload(name) is None


def test_operators_of_torchvision():
    torchvision = pytest.importorskip("torchvision")
    del torchvision
    assert find_overload("torchvision.nms.default") is torch.ops.torchvision.nms.default
    assert find_overload("torchvision.nms.__class__") is None


@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_torchvision_that_cannot_be_imported_is_named(error, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torchvision":
            raise error("not here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(FormatError, match=r"roi_align.*torchvision.*not here"):
        find_overload("torchvision.roi_align.default")


def test_every_pattern_denies_something():
    names = [name.split("::")[1].split(".")[0] for name in ATEN]
    for pattern in " ".join(DENIED.values()).split():
        assert fnmatch.filter(names, pattern), pattern
