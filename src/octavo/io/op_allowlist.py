"""What a file may name: the ATen operators, and the values of torch, that `octavo.load` builds.

Allowed are the operators of the operator table, and the further ones listed here. All compute new
tensors from tensors, or sizes. Left out are those that write in place, read files, print, or
return memory as they found it (`empty`); check an operator for these before adding it.
"""

import torch

from ..graph.operators import OPERATORS

FURTHER_OPERATORS = """
    __and__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d
    _assert_async _assert_scalar _assert_tensor_metadata _cdist_forward _conj _conj_physical
    _conv_depthwise2d _fft_c2c _fft_c2r _fft_r2c _is_all_true _is_any_true _local_scalar_dense
    _log_softmax _native_batch_norm_legit_no_training _pdist_forward _reshape_alias
    _safe_softmax _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_index
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _weight_norm _weight_norm_interface abs acos
    acosh adaptive_max_pool1d adaptive_max_pool3d addbmm addcdiv addcmul addmv addr
    affine_grid_generator alias all alpha_dropout amax amin aminmax angle any arange arccos
    arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort asin asinh atan atan2
    atanh atleast_1d atleast_2d atleast_3d bilinear bincount bitwise_and bitwise_left_shift
    bitwise_not bitwise_or bitwise_right_shift bitwise_xor block_diag broadcast_tensors
    broadcast_to bucketize cartesian_prod cdist ceil celu clamp_max clip col2im column_stack
    complex concat concatenate conj conj_physical convolution copy copy_ copysign cos cosh
    cosine_similarity count_nonzero cross cummax cummin cumprod cumsum deg2rad det detach
    detach_copy diag diag_embed diagflat diagonal diff digamma dist divide dot einsum
    embedding_bag eq equal erf erfc erfinv exp exp2 expand_copy expm1 eye feature_alpha_dropout
    feature_dropout fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_ifft
    fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2 fft_irfftn fft_rfft
    fft_rfft2 fft_rfftfreq fft_rfftn fill fix fliplr flipud float_power floor floor_divide fmax
    fmin fmod frac frexp frobenius_norm full full_like gather ge glu greater greater_equal
    grid_sampler grid_sampler_2d grid_sampler_3d gru_cell gt hamming_window hann_window
    hardshrink heaviside hypot i0 im2col imag index index_add index_copy index_fill index_put
    index_reduce inner inverse isfinite isin isinf isnan isneginf isposinf isreal kron kthvalue
    ldexp le lerp less less_equal lgamma lift_fresh_copy linalg_cross linalg_inv linalg_norm
    linalg_vector_norm linspace log log10 log1p log2 log_sigmoid logaddexp logaddexp2
    logcumsumexp logical_and logical_not logical_or logical_xor logit logspace logsumexp
    lstm_cell lt masked_fill masked_scatter masked_select max max_pool1d_with_indices
    max_pool2d_with_indices max_pool3d_with_indices maximum median meshgrid min minimum mm
    moveaxis multiply mv nan_to_num nanmean nansum native_batch_norm native_group_norm
    native_layer_norm ne neg negative new_full new_ones new_zeros nonzero nonzero_numpy norm
    not_equal numel numpy_T one_hot ones ones_like outer pairwise_distance permute_copy pinverse
    polar positive pow prod quantile rad2deg rand rand_like randint randn randn_like ravel real
    reciprocal reflection_pad3d relu6 remainder repeat_interleave replication_pad1d
    replication_pad3d reshape_as resolve_conj resolve_neg rnn_relu_cell rnn_tanh_cell rot90
    round rrelu rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add
    scatter_reduce searchsorted select_copy select_scatter selu sgn sign signbit sin sinc sinh
    size slice_copy slice_scatter softshrink sort special_erf special_erfc special_exp2
    special_expit special_expm1 special_gammaln special_log1p special_log_softmax special_logit
    special_ndtr special_softmax split_copy split_with_sizes_copy sqrt square squeeze_copy stack
    std std_mean stft sub subtract swapaxes swapdims sym_constrain_range
    sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size sym_storage_offset
    sym_stride t_copy take take_along_dim tan tensor_split tensordot threshold tile to topk
    trace transpose_copy tril tril_indices triu triu_indices true_divide trunc type_as
    unbind_copy unfold unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes
    unsqueeze_copy upsample_bicubic2d upsample_linear1d upsample_trilinear3d var var_mean
    view_as_complex view_as_complex_copy view_as_real view_as_real_copy view_copy vstack where
    xlogy zeros zeros_like
"""
ATEN_OPERATORS = frozenset((*OPERATORS, *FURTHER_OPERATORS.split()))

# dtypes, layouts and memory formats, by their names in torch
TORCH_TYPES = (torch.dtype, torch.layout, torch.memory_format)
TORCH_VALUES = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, TORCH_TYPES)
}
