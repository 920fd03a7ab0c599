"""Runs what an app declares."""
