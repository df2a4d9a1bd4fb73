"""Protocols over byte streams: cores that never await, and the sessions around them. None knows of connections."""
