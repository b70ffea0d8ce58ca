"""Which file of a run is the good one: each draws the same prompts, and what it drew is measured."""
