"""CPU features that decide whether 8-bit weights are safe."""

import platform

import torch

X86 = ("x86_64", "amd64", "x86", "i386", "i686")


def saturates_pairs() -> bool:
    """Whether pairs of uint8 x int8 products are added in int16, which 2 * 255 * 127 overflows.

    True on x86 without VNNI instructions (vpmaddubsw saturates); 7-bit weights always fit:
    2 * 255 * 63 < 2**15. ARM's kernels widen first.
    """
    if platform.machine().lower() not in X86:
        return False
    known = torch.cpu.get_capabilities()
    return not (known.get("avx512_vnni") or known.get("avx_vnni"))
