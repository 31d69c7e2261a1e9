"""The one training loop that all jobs share, and the folder it leaves behind."""
