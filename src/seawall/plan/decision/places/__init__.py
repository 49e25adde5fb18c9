"""Places: where a service can run, each with its candidates, limits, bill and words."""
