"""Alarms for servers: metrics joined with the log lines around them."""
