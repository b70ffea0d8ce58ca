"""The settings files of kohya's trainer (sd-scripts), read as they are.

`key.py` says what a row of the table is; `network.py`, `optimizer.py`, `pictures.py`, `loop.py` and `files.py` hold
the rows, `table.py` has them all. `read.py` reads files and `datasets.py` those for data sets, `gather.py` puts them
together, `translate.py` makes settings of them.
"""
