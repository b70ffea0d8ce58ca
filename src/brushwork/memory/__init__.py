"""What a run needs of memory: measured without running it, planned, and made smaller."""
