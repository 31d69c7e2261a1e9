"""One sequence from another: what translation and generated exercises share."""
