"""The fast path of a frozen base: the plain network's numbers with less kept, less computed and fewer calls."""
