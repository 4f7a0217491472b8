"""One generation batch, from prompts to rewards: sample, judge, critique, refine, fill slots.

`two_phase` runs the stations and returns a `generation.Generation`. `sampler` and `scoring` are the
only modules here that read the trainer.
"""
