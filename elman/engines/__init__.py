"""What runs a cell, and the choice among them."""
