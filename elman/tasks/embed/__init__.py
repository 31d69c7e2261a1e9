"""Word vectors: how they are learned, and what people say of them."""
