"""Operator sets: what the network is computed with, written once over any of them (model/gpt2.py).

``stock.StockOps`` composes MXNet's own operators. ``fused_cpu.FusedCpuOps`` and ``fused_cuda.FusedCudaOps`` have the
same methods over operators compiled on the user's machine, and give the same numbers. ``choose.choose_ops`` picks one.
"""
