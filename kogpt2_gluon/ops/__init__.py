"""Operator sets: the network is written once (model/gpt2.py), over the methods of ``operator_set.OperatorSet``.

``stock.StockOps`` composes MXNet's own operators. ``fused_cpu.FusedCpuOps`` and ``fused_cuda.FusedCudaOps`` use
operators that are compiled on the user's machine, and give the same numbers. ``choose.choose_ops`` picks a set.
"""
