"""What is computed once and kept, addressed by content."""
