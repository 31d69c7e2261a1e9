"""Networks that several jobs share."""
