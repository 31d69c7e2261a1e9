"""Every picture: one canvas, and one file a kind of picture."""
