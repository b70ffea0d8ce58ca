"""The words of a data set: what they are, and changing them without losing any."""
