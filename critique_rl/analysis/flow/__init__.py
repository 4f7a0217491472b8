"""Where a policy's probability goes: masses by class of completion, their tables and figures."""
