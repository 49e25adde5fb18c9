"""OpenAPI documents as tools: their operations, requests, and answers as text for a model."""
