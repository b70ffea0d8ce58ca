"""Pictures and captions: reading, checking, placing."""
