"""KoGPT-2 on Gluon: train, evaluate and convert the first open Korean GPT-2.

Importing this package loads neither MXNet nor any CUDA library; the modules that need them ask
:mod:`kogpt2_gluon.machine.runtime` for them.
"""

__version__ = "0.1.0"
