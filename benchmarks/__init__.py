"""Benchmarks: Octavo beside other quantizers, on many architectures, under load.

Run from the repository's root, each with `--help`:

    python -m benchmarks.peers                   latency, time until ready, SQNR, beside its peers
    python -m benchmarks.profiles                the time of each kind of operator, beside NNCF
    python -m benchmarks.accuracy                accuracy on trained networks, beside its peers
    python -m benchmarks.accuracy.cost           time and memory of quantizing these networks
    python -m benchmarks.accuracy.error_sources  what is left of the error, and where it comes from
    python -m benchmarks.sweep                   what becomes of many architectures
    python -m benchmarks.serving                 compiled models called from many threads
    python -m benchmarks.equivalence             whether two versions of Octavo give the same models
"""
