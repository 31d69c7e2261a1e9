"""The commands of ``elman``, by what they are about."""
