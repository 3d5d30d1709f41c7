"""Execution: one runner that reads what is stored, computes the rest and stores it."""
