"""Hosts: receive requests and run turns; an HTTP server and the AWS Lambda runtime."""
