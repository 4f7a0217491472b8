"""Finished runs -> comparison, verdict, claims, page and tables. No torch, no TRL."""
