"""Pods that serve many requests each and share their processor among them: a loop over events.

A request is a burst of processor time, a wait for upstreams, and another burst.
"""
