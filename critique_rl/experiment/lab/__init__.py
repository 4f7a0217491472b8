"""The tables of the embedded worlds: what their bases can do, and what critiques are worth."""
