"""A verdict on runs that somebody else made, from their logs of answers."""
