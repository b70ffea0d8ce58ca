"""The command line: one file for a command."""
