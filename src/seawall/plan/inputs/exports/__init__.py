"""Recorded traffic as others export it: CSV, Prometheus, CloudWatch, logs of a load balancer."""
