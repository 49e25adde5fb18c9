"""Environments that serve one request each, as Lambda's do: a loop over attempts, in order of time.

An attempt takes a provisioned environment, an idle one, or starts a new one; or it is throttled.
What becomes of it is known at once, so there is no event but the end of an environment's work.
"""
