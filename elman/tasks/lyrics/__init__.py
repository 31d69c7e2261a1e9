"""Verse: a language model that is told the form."""
