"""The local page: a person looks at pictures and decides."""
