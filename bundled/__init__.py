"""How the bundled model was made: one script a stage, run in the order of bundled/README.md."""
