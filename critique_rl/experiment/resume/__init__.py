"""Continued means the same run: what a run goes on from, and what may have changed since."""
