"""Figures of the lab: printed, never asserted."""
