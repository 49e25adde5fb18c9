"""Fleets on this machine: pods behind a balancer, or Lambda's environments; real processes."""
