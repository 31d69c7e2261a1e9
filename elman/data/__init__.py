"""Readers, vocabularies, batching, and the registry of corpora."""
