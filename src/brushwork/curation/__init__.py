"""From raw frames to a clean set: what is kept of them, what is refused, and why."""
