"""How surely a drawn subject is found however it is hidden: `make bench-evasion`.

`subjects.py` draws, `layouts.py`, `appearance.py` and `tricks.py` hide, `transforms.py` lists the
ways, `scoring.py` asks the real inference service, and `tally.py` counts and prints.
"""
