"""Tagging: its measures and what it answers."""
