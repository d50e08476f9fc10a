"""Runs: trainings on disk."""
