"""Language modelling: its network, its texts measured, what it writes."""
