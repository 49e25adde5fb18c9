"""Models: the port, the adapters of providers, and resilient calls over them."""
