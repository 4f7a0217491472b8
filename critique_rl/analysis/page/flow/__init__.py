"""Figures of where the probability went: stacked areas, bars of the account, arrows."""
