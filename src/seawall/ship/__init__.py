"""What is deployed, made from what is here."""
