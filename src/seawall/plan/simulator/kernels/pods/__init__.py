"""Pods that serve many requests each, and share their processor: a loop over events.

A request is a burst of processor time, a wait for others, and another burst.
"""
