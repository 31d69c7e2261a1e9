"""Dialogue: what is learned from, and talking."""
