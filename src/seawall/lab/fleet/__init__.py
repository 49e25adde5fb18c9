"""Fleets on this machine: pods behind a balancer, or Lambda environments, as real processes."""
