"""Environments that serve one request each, as Lambda's: a loop over attempts in order of time.

An attempt takes a provisioned environment, an idle one, or starts a new one; or it is throttled.
Its outcome is known at once, so that the only event is the end of an environment's work.
"""
