"""Rows of the user's data: files as they are written, cells as text, choices, near repeats, and the
data set that TRL trains on.
"""
