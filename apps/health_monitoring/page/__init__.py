"""The health page: hosts by urgency, alarms with their story."""
