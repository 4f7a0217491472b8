"""The embedded worlds: problems, oracles, base policies, and the recipes that build them.

A world is two files: `<world>.py` has its problems, its critiques and its checks,
`<world>_base.py` the examples that its base is trained on. `base.py` serves `chain`, and holds what
all bases share. `build.py` trains.
"""
