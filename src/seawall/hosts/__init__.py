"""What receives requests and feeds the pipeline."""
