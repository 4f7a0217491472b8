"""Whose log-probs a policy is distilled towards: its own, another model's, or a server's."""
