"""Low-rank adapters: layers, where they go, and their files."""
