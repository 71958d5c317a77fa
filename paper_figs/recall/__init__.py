"""Figures of recall: memories of any shape, and tasks that people know."""
