"""Kernels for NVIDIA's GPUs: built by NVRTC, launched by the driver."""

from elman.compiler.cuda import scan, target

__all__ = ["scan", "target"]
