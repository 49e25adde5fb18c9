"""What keeps a failing upstream from taking its callers down: pure arithmetic, time passed in."""
