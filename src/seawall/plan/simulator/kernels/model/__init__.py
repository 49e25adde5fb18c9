"""Model calls: admitted by the quotas of their provider, refused and repeated, or queued.

A platform's loop opens a call when its turn comes to the model, asks `next_call` at the time
`quota.clock[NEXT]`, and gets the calls that are decided, one at a time.
"""
