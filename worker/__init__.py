"""The node: what arrives is stored, queued, read, and its results are sent back."""
