"""What this machine's CPU can do, as far as it decides what integers are safe."""

import platform

import torch

X86 = ("x86_64", "amd64", "x86", "i386", "i686")


def saturates_pairs() -> bool:
    """Whether products of uint8 and int8 are added in pairs in 16 bits, where 2 * 255 * 127 ends.

    So on x86 without the VNNI instructions (vpmaddubsw saturates); weights of 7 bits always fit:
    2 * 255 * 63 < 2**15. ARM's kernels widen first.
    """
    if platform.machine().lower() not in X86:
        return False
    known = torch.cpu.get_capabilities()
    return not (known.get("avx512_vnni") or known.get("avx_vnni"))
