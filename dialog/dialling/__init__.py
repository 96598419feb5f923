"""Dialling a list of numbers: each as often as it should be, and never twice, whatever happens meanwhile."""
