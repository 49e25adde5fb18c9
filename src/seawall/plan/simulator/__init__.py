"""The simulator: a workload on a platform, request by request."""
