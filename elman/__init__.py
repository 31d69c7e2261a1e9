"""elman: recurrent neural networks on PyTorch."""
