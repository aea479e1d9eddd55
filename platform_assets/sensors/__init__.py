"""Sensors of the platform."""
