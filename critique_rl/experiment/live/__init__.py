"""What people see of a run while it trains: its progress, and trackers."""
