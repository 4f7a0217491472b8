"""The embedded worlds: problems, oracles, base policies, and the recipes that build them."""
