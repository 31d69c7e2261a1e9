"""A cell to something that runs: the engines, and the choice among them."""
