"""Drawn pictures to try everything on."""
