"""Deployment artefacts, generated from a plan."""
