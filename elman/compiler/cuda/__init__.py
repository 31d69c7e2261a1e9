"""Kernels for NVIDIA's GPUs: built by NVRTC, launched by the driver."""
