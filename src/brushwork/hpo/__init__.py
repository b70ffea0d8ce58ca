"""The search for settings: what may be drawn, what is refused, the study, its report."""
