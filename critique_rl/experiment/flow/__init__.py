"""Where a policy's probability goes: masses of classes of completions, per checkpoint and step."""
