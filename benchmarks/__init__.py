"""Measurements that take minutes: of the bundled model, and of ourselves beside other programs."""
