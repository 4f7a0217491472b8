"""Log-probs of a given text: what is asked of a server, how it answers, which form it takes."""
