"""Readers of recorded traffic: tables, Prometheus, CloudWatch, logs of load balancers."""
