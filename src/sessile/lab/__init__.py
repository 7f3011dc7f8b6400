"""Scenarios on real processes: the demo, and what it is made of."""
