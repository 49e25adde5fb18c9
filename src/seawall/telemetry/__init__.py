"""What a running server tells about itself."""
