"""The load lab: simulated model, surge driver, fleets of servers and a local Lambda."""
