"""Kernels for NVIDIA's GPUs: built by NVRTC, launched by the driver."""

from elman.compiler.cuda import target

__all__ = ["target"]
