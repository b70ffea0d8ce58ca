"""Seeing: encoders of pictures, measures of their quality, and which of them are alike."""
