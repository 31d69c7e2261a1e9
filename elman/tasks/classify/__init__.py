"""Classification: what is read, what is told of it."""
