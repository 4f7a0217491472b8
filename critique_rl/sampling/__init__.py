"""One sampler: prompt ids, stop ids, generation settings, texts and counts of TRL's rollouts.

Evaluations and critics in process sample with it, without a trainer. Rollouts share its texts and
ends.
"""
